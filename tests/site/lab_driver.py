"""JupyterLab for the tests: started with nobody's settings, driven as a learner does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from urllib.parse import quote
from urllib.request import Request, urlopen

from playwright.sync_api import Locator, Page

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"autoStartDefaultKernel": True},
}
ALL_RUN = """() => {
  const prompts = [...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')].map(prompt => prompt.textContent);
  return prompts.every(text => text === '' || /\\[\\d+\\]/.test(text));   // a folded cell's is empty
}"""


def wait_for(happened: Callable[[], bool], what: str, seconds: float = 300) -> None:
    "Wait, but not for ever."
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} after {seconds} s")
        time.sleep(0.1)


def free_port() -> int:
    "A port that nobody listens at."
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Lab:
    "A running JupyterLab."

    def __init__(self, address: str):
        self.address = address

    def api(self, path: str, method: str = "GET"):
        "Ask the server."
        with urlopen(Request(f"{self.address}/api/{path}", method=method)) as answer:
            return json.loads(answer.read() or "null")

    def answers(self) -> bool:
        "Whether the server is up."
        try:
            return bool(self.api("status"))
        except OSError:
            return False

    def is_idle(self, name: str) -> bool:
        "Whether the kernel of a notebook waits for work; what the toolbar says comes too early."
        return any(session["path"] == name and session["kernel"]["execution_state"] == "idle"
                   for session in self.api("sessions"))

    def open(self, page: Page, name: str) -> None:
        "Open a notebook in a workspace of its own."
        page.goto(f"{self.address}/lab/workspaces/{time.monotonic_ns()}/tree/{quote(name)}")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=300_000)
        wait_for(lambda: self.is_idle(name), f"kernel for {name}")

    def close(self) -> None:
        "End the kernels, so that the server can stop at once."
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")


@contextmanager
def lab(root: Path, home: Path) -> Iterator[Lab]:
    "JupyterLab over a folder, with an empty home."
    folders = {name: str(home / name.lower()) for name in
               ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_WORKSPACES_DIR",
                "JUPYTERLAB_SETTINGS_DIR")}
    for name, setting in SETTINGS.items():
        path = Path(folders["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", f"{name}.jupyterlab-settings")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting))
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=",
               "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={root}",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | folders | {"HOME": str(home)}, stdout=log, stderr=log)
    running = Lab(f"http://127.0.0.1:{port}")
    try:
        wait_for(running.answers, "answer from JupyterLab")
        yield running
        running.close()
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def run_all(page: Page, seconds: float = 600) -> None:
    "Run all cells, from a notebook without outputs, and wait for the last."
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ALL_RUN, timeout=1000 * seconds)


def run_line(page: Page, line: str) -> str:
    "Write a line into a new last cell, run it, and return what it prints."
    page.locator(".jp-Notebook-footer").click()
    cell = page.locator(".jp-CodeCell").last
    cell.locator(".cm-content").click()
    page.keyboard.type(line)
    page.keyboard.press("Control+Enter")
    cell.locator(".jp-InputPrompt", has_text="]:").filter(has_not_text="*").wait_for()
    return said(cell)


def said(cell: Locator) -> str:
    "The text that a cell has printed."
    cell.locator(".jp-OutputArea-output").first.wait_for()
    return cell.locator(".jp-OutputArea-output").first.inner_text().strip()
