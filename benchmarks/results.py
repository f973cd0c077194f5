"""Run every benchmark, show what it prints, and keep it all in RESULTS.md."""

import os
import subprocess
import sys
from argparse import ArgumentParser
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = ("imports", "train", "generate", "attention", "moe", "optimizer", "memory", "data", "page")


def run(name: str) -> tuple[str, int]:
    """What a benchmark prints, shown as it comes, and its exit code: other than 0 if it misses a claim."""
    command, environment = [sys.executable, str(HERE / f"{name}.py")], {**os.environ, "GEMINIQ_MACHINE_SAID": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines).strip("\n"), process.returncode


def section(name: str, printed: str, code: int) -> str:
    """A benchmark in Markdown: what it is about, and what it printed when."""
    told = (HERE / f"{name}.py").read_text(encoding="utf-8").split('"""')[1].strip()
    return (f"## {name}\n\n{told}\n\nPrinted on {date.today():%d %B %Y}:\n\n```text\n{printed}\n```"
            + "\n\n**A claim is missed.**" * bool(code))


def main() -> int:
    """Print and write; 1 if any benchmark misses a claim."""
    from common import machine

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}: only these, the others stay as they are")
    names = parser.parse_args().names or BENCHMARKS
    file, described, missed = HERE / "RESULTS.md", machine().strip(), []
    before = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    parts = dict.fromkeys(BENCHMARKS, "") | {part.partition("\n")[0]: f"## {part.strip()}" for part in before.split("\n## ")[1:]}
    print(described, flush=True)
    for name in names:
        print(f"\n== {name}", flush=True)
        printed, code = run(name)
        parts[name] = section(name, printed, code)
        missed += [name] * bool(code)
    head = ("# Benchmarks\n\nWhat `make bench` printed. Ratios and slopes travel, seconds do not. "
            f"The machine, at the last run:\n\n```text\n{described}\n```")
    file.write_text("\n\n".join([head, *filter(None, parts.values())]) + "\n", encoding="utf-8")
    print(f"\nwritten to {file}; " + (f"claims are missed in {', '.join(missed)}" if missed else "every claim holds"))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
