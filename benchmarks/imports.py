"""What importing geminiq costs, against importing torch, each time in a fresh interpreter."""

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from statistics import median

CASES = {"torch": "import torch",
         "geminiq": "import geminiq",
         "training and generation": "import geminiq.training.trainer, geminiq.generation.chat"}
UNWANTED = ("nbdev", "fastcore", "transformers", "IPython", "jupyter", "ipywidgets", "matplotlib")
LIMIT = 1.3   # times `import torch`, for `import geminiq`
CHILD = """
import sys, time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start, *{{name.partition(".")[0] for name in sys.modules}} & set({unwanted}))
"""


def fresh_import(statement: str) -> tuple[float, list[str]]:   # seconds, unwanted packages that came with it
    """Run an import in a new interpreter."""
    program = CHILD.format(statement=statement, unwanted=UNWANTED)
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    seconds, *unwanted = done.stdout.split()
    return float(seconds), sorted(unwanted)


def measure(rounds: int) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """The seconds of every case in every round, taken in turn, and the unwanted packages of every case."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    unwanted: dict[str, list[str]] = {}
    for name, statement in CASES.items():
        unwanted[name] = fresh_import(statement)[1]   # not timed: it fills the file cache
    for _ in range(rounds):
        for name, statement in CASES.items():
            times[name].append(fresh_import(statement)[0])
    return times, unwanted


def ratio(taken: Sequence[float], against: Sequence[float]) -> float:
    """How many times as long: the median over the rounds."""
    return median(a / b for a, b in zip(taken, against, strict=True))


def main() -> int:
    """Print the table; 1 if a limit is broken."""
    options = ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7, help="imports for each row (default: %(default)s)")
    times, unwanted = measure(options.parse_args().rounds)
    from common import machine  # only now, not to disturb the times

    print(machine())
    print(f"{'import':25}{'seconds':>8}{'of torch':>10}  unwanted packages")
    for name, taken in times.items():
        print(f"{name:25}{median(taken):8.3f}{ratio(taken, times['torch']):10.2f}  "
              f"{', '.join(unwanted[name]) or 'none'}")
    slow = ratio(times["geminiq"], times["torch"]) > LIMIT
    brought = unwanted["geminiq"] or unwanted["training and generation"]
    if slow:
        print(f"\n`import geminiq` costs more than {LIMIT} times `import torch`")
    if brought:
        print("\ngeminiq imports packages that its user did not ask for")
    return int(slow or bool(brought))


if __name__ == "__main__":
    sys.exit(main())
