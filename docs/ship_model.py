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


def ship(run: Path,      # where `geminiq train` wrote
         folder: Path,   # to write; what was there is replaced
         ) -> None:
    "Write a run's model, its report and its log."
    shutil.rmtree(folder, ignore_errors=True)
    model, config, tokenizer = load_checkpoint(run)
    save_checkpoint(folder, model, config, tokenizer, dtype=torch.float16)
    model = load_checkpoint(folder).model
    report = evaluate(model, tokenizer)
    print(report)
    save_report(report, folder / "report.json")
    write_file(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in thinned(run)))


def thinned(run: Path) -> list[dict]:
    "Of the log, the first twenty steps, every fiftieth, and the evaluations."
    entries = [entry for entry in read_log(run, checkpoint_step(checkpoints(run)[-1]))
               if entry["step"] <= 20 or entry["step"] % 50 == 0 or "val_loss" in entry]
    return [{key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in entry.items()}
            for entry in entries]


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]))
