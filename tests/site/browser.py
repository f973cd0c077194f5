"""Find a Chromium for the tests of the site, or run as a script to install one."""

import os
import shutil
import subprocess
import sys


def find() -> str | None:
    "A Chromium or Chrome on this machine."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    named = (os.environ.get("CHROME"), "chromium", "chromium-browser", "google-chrome", own)
    return next((path for name in named if name and (path := shutil.which(name))), None)


def install() -> None:
    "Get one: from the system's packages as root, else from Playwright."
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"])
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], stdout=subprocess.DEVNULL)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"])


def main() -> int:
    "Make sure that there is a browser, or say loudly that its tests will be skipped."
    if not find():
        print("no browser found: installing one")
        install()
    if path := find():
        print(f"browser: {path}")
        return 0
    print("\n*** NO BROWSER: the pages of the site will NOT be tested. Install Chromium or set CHROME. ***\n")
    return 1 if os.environ.get("GEMINIQ_REQUIRE_BROWSER") else 0


if __name__ == "__main__":
    sys.exit(main())
