"""What ships of a finished run: weights in 16 bits, how often they are right, and a short log."""

import json
import shutil
import sys
from pathlib import Path

import torch

from geminiq.generation.evaluation import evaluate, save_report
from geminiq.training.callbacks import read_log
from geminiq.utils.checkpointing import checkpoint_step, checkpoints, load_checkpoint, save_checkpoint
from geminiq.utils.files import write_file


def ship(first: Path,    # where `geminiq train` wrote the first part
         second: Path,   # and the second, which began with the weights of the first
         folder: Path,   # to write; what was there is replaced
         ) -> None:
    "Write a model, its report and its log."
    entries = thinned(first)
    entries += thinned(second, after=entries[-1]["step"])
    model, config, tokenizer = load_checkpoint(second)
    shutil.rmtree(folder, ignore_errors=True)
    save_checkpoint(folder, model, config, tokenizer, dtype=torch.float16)
    model = load_checkpoint(folder).model
    report = evaluate(model, tokenizer)
    print(report)
    save_report(report, folder / "report.json")
    write_file(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))


def thinned(run: Path,
            after: int = 0,   # steps of the part before
            ) -> list[dict]:
    "Of a log, the first twenty steps, every fiftieth, and the evaluations."
    entries = [entry for entry in read_log(run, checkpoint_step(checkpoints(run)[-1]))
               if (entry["step"] or not after) and (entry["step"] <= 20 or entry["step"] % 50 == 0 or "val_loss" in entry)]
    return [{key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in entry.items()}
            | {"step": after + entry["step"]} for entry in entries]


if __name__ == "__main__":
    ship(*map(Path, sys.argv[1:]))
