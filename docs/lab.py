"""Open the course in JupyterLab; print the address where there is no browser to open."""

import os
import sys
import webbrowser
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "nbs"


def has_browser() -> bool:
    "Whether a browser that draws on a screen can be opened from here."
    try:
        name = type(webbrowser.get()).__name__
    except webbrowser.Error:
        return False
    screen = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return screen and name != "GenericBrowser"   # what draws in the terminal is of no use here


def main() -> None:
    "Become JupyterLab, with arguments passed on."
    os.chdir(NOTEBOOKS)
    command = [sys.executable, "-m", "jupyterlab", "--LabApp.default_url=/lab/tree/index.ipynb"]
    if not has_browser():
        print("No browser here. Open one of the addresses below, from this machine or through a tunnel.", flush=True)
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    os.execv(sys.executable, [*command, *sys.argv[1:]])


if __name__ == "__main__":
    main()
