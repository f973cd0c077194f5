"""Run every benchmark, show what it prints, and keep it all in RESULTS.md."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = ("imports", "train", "generate", "attention", "moe", "memory")


def run(name: str) -> tuple[str, int]:
    """What a benchmark prints, shown as it comes, and its exit code: other than 0 if it misses a claim."""
    command, environment = [sys.executable, str(HERE / f"{name}.py")], {**os.environ, "GEMINIQ_MACHINE_SAID": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines).strip(), process.returncode


def main() -> int:
    """Print and write; 1 if any benchmark misses a claim."""
    from common import machine

    described = machine().strip()
    print(described, flush=True)
    parts = [f"# Benchmarks\n\nWhat `make bench` printed on {date.today():%d %B %Y}. Ratios and slopes travel, seconds do "
             f"not.\n\n```text\n{described}\n```"]
    missed = []
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        printed, code = run(name)
        told = (HERE / f"{name}.py").read_text(encoding="utf-8").split('"""')[1].strip()
        parts.append(f"## {name}\n\n{told}\n\n```text\n{printed}\n```" + "\n\n**A claim is missed.**" * bool(code))
        missed += [name] * bool(code)
    (HERE / "RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    verdict = f"claims are missed in {', '.join(missed)}" if missed else "every claim holds"
    print(f"\nwritten to {HERE / 'RESULTS.md'}; {verdict}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
