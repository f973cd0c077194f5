"""Open the course of this repository in JupyterLab; arguments are passed on to it."""

import sys
from pathlib import Path

from geminiq.course.lessons import open_lab

if __name__ == "__main__":
    open_lab(Path(__file__).parents[1] / "nbs", sys.argv[1:])
