"""Run notebooks from top to bottom in a fresh kernel, and save them with what they show, cleaned."""

import argparse
import subprocess
import sys
from pathlib import Path

import nbformat

from report import run


def main() -> None:
    "Export first: a lesson imports what the lessons before it have put into the package."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path)
    scripts = Path(sys.executable).parent
    subprocess.run([scripts / "nbdev_export"], check=True)
    for path in parser.parse_args().notebooks:
        print(f"running {path}", flush=True)
        notebook = run(path)
        notebook.metadata.pop("widgets", None)   # a saved picture is alive without its kernel's memory
        nbformat.write(notebook, path)
        subprocess.run([scripts / "nbdev_clean", "--fname", path], check=True)


if __name__ == "__main__":
    main()
