"""Run notebooks from top to bottom in a fresh kernel, and save them with what they show, cleaned."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode

from report import run

WIDGET = "application/vnd.jupyter.widget-view+json"


def without_passing(notebook: NotebookNode) -> NotebookNode:
    "The notebook without what passes: controls and their memory, which only a kernel can show, and progress bars."
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {}) and out.get("name") != "stderr"]
    return notebook


def main() -> None:
    "Export first: a lesson imports what the lessons before it have put into the package."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path)
    scripts = Path(sys.executable).parent
    subprocess.run([scripts / "nbdev_export"], check=True)
    for path in parser.parse_args().notebooks:
        print(f"running {path}", flush=True)
        with TemporaryDirectory() as home:      # nobody's exercises are solved yet
            os.environ["GEMINIQ_PROGRESS"] = str(Path(home) / "progress.json")
            nbformat.write(without_passing(run(path)), path)
        subprocess.run([scripts / "nbdev_clean", "--fname", path], check=True)


if __name__ == "__main__":
    main()
