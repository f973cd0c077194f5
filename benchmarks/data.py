"""Text that does not fit into memory: prepared for training, and read in windows, with less than 400 MB resident.

The text is Python's own manual again and again, each copy with other words in it. The memory is the highest that this process
has had, PyTorch included, and what it holds together with the processes that encode beside it. A first call learns the tokenizer,
drops from the held-out part what the training part repeats, and writes the tokens; a second one finds them; then batches are
read.
"""

import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from geminiq.data.corpus import load_corpus
from geminiq.data.dataloader import ShuffledBatchSampler, prepare_data, train_loader
from geminiq.utils.config import DataConfig

LIMIT = 400        # MB
VOCAB_SIZE = 8192


def resident(pid: str = "self", field: str = "VmHWM") -> float:   # MB
    """What a process holds now (VmRSS), or held at its highest (VmHWM); 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/status").read_text().partition(f"{field}:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


class Watch(threading.Thread):
    """Looks ten times a second at the processes beside this one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.beside = 0.0     # MB, the highest sum of all children
        self.together = 0.0   # MB, the highest sum of them and this process
        self.most = 0         # children at one time

    def run(self) -> None:
        """Until the program ends."""
        while True:
            children = Path("/proc/self/task", str(threading.main_thread().native_id), "children").read_text().split()
            held = [resident(pid, "VmRSS") for pid in children]
            self.beside, self.most = max(self.beside, sum(held)), max(self.most, len(children))
            self.together = max(self.together, sum(held) + resident(field="VmRSS"))
            time.sleep(0.1)


def write_text(path: Path, size: int) -> int:
    """Copies of the manual up to about `size` bytes, in which some words differ from copy to copy."""
    documents, written = load_corpus("pydocs"), 0
    with path.open("w", encoding="utf-8") as file:
        for copy in range(size):
            for _, text in documents:
                written += file.write(text.replace(" the ", f" the{copy} ").replace(" is ", f" is{copy % 97} ") + "\n\n")
                if written >= size:
                    return written
    return written


def measure(size: int) -> int:
    """Print the table; 1 if the claim is missed."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        write_text(path, size)
        size, run = path.stat().st_size, Path(folder, "run")
        settings = DataConfig(train_path=str(path), val_fraction=0.1, seq_length=256)
        print(f"{size / 1e6:,.0f} MB of text, vocabulary {VOCAB_SIZE:,}, a tenth held out\n")
        print(f"{'':34}{'seconds':>9}{'MB/s':>8}{'resident MB':>13}")
        print(f"{'imports, and the manual once':34}{'':17}{resident():13.0f}", flush=True)
        watch.start()
        data = timed("prepared", size, lambda: prepare_data(settings, VOCAB_SIZE, 0, run))
        timed("found again", size, lambda: prepare_data(settings, VOCAB_SIZE, 0, run, data.tokenizer))
        batches = train_loader(data.train, 32, seed=0, start=32 * 10**6)
        timed("2000 batches of 32 windows read", 2000 * 32 * 256 * 2, lambda: deque(islice(batches, 2000), maxlen=0))
        files = [part.tokens for part in (data.train, data.val)]
        tokens = sum(map(len, files))
        print(f"\n{tokens / 1e6:,.0f} million tokens, {len(files[0]) / tokens:.0%} of them to train on, in "
              f"{sum(file.path.stat().st_size for file in files) / 1e6:,.0f} MB of files")
    start = time.perf_counter()
    ShuffledBatchSampler(10**9, 32, seed=0).batch(10**9)
    print(f"the batch at place 10⁹ of 10⁹ windows: {(time.perf_counter() - start) * 1e3:.1f} ms")
    print(f"at the highest: this process {resident():.0f} MB, {watch.most} processes beside it {watch.beside:.0f} MB, "
          f"at one moment together {watch.together:.0f} MB; the limit is {LIMIT} MB")
    return int(max(resident(), watch.together) > LIMIT)


def timed(what: str, size: int, action: Callable[[], Any]) -> Any:
    """Do it, and print a row: the seconds, the bytes in a second, the memory."""
    start = time.perf_counter()
    result = action()
    taken = time.perf_counter() - start
    print(f"{what:34}{taken:9.1f}{size / 1e6 / taken:8.1f}{resident():13.0f}", flush=True)
    return result


def main() -> int:
    """Measure in a process that has done nothing else before; 1 if the claim is missed."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000, help="size of the text (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help="do not start another process")
    options = parser.parse_args()
    if options.measure:
        return measure(options.mb * 10**6)
    from common import machine
    print(machine(), flush=True)
    return subprocess.run([sys.executable, __file__, "--measure", "--mb", str(options.mb)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
