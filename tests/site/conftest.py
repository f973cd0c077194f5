"""The built site, a server for it, and a browser to look at it with."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from browser import find
from geminiq.utils.explorables import Explorable
from geminiq.utils.live import LiveExplorable, engine_code
from page_checks import strangers

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1"]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A picture</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><style>
body { font-family: system-ui; margin: 24px; max-width: 780px }
@media (prefers-color-scheme: dark) { body { background: #131416; color: #cfd0d0; color-scheme: dark } }
</style>"""

expect.set_options(timeout=60_000)   # milliseconds: what is late on a slow day is not wrong


class QuietHandler(SimpleHTTPRequestHandler):
    "Serves files and logs nothing."

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    "Serve a folder on this machine, at the address given."
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def sources() -> list[Path]:
    "Every file that the site is made from."
    patterns = ("nbs/**/*.ipynb", "geminiq/**/*.py", "geminiq/explorables/*.js", "geminiq/weights/*/*", "docs/*.*",
                "docs/_static/*.*", "*.yml", "settings.ini")
    return [path for pattern in patterns for path in ROOT.glob(pattern)]


@pytest.fixture(scope="session")
def site() -> Path:
    "The built site: built now if it is older than what it is made from."
    built = ROOT / "_docs" / "index.html"
    if not built.exists() or built.stat().st_mtime < max(path.stat().st_mtime for path in sources()):
        subprocess.run([sys.executable, ROOT / "docs" / "build_site.py"], check=True)
    return built.parent


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    "Where the site is served."
    with served(site) as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    "A browser that can reach nothing but this machine."
    path = find()
    if path is None:
        message = "no browser found, so the pages were NOT tested: install Chromium or set CHROME"
        if os.environ.get("GEMINIQ_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def draw(browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    "Put an explorable on a page and open it; nothing may go wrong there, nor be asked of the network."
    pages, problems = [], []

    def open_page(explorable: Explorable, around: str = "PICTURE", **options) -> Page:
        (tmp_path / "page.html").write_text(PAGE + around.replace("PICTURE", explorable.html()))
        if isinstance(explorable, LiveExplorable):
            (engine := tmp_path / "_static" / "engine").mkdir(parents=True, exist_ok=True)
            (engine / "engine.js").write_text(engine_code())
            (engine / f"{explorable.source}.gz").write_bytes(explorable._file)
        page = browser.new_page(**options)
        page.on("request", lambda request: problems.extend(strangers(request.url)))
        page.on("console", lambda said: problems.append(said.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}/page.html")
        pages.append(page)
        return page

    with served(tmp_path) as address:
        yield open_page
        for page in pages:
            page.close()
    assert not problems
