"""Write the page of references: what docs/references.yaml lists, and who cites it; with --check only say what is wrong."""

import argparse
import json
import posixpath
import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS, DATA, PAGE = ROOT / "nbs", ROOT / "docs" / "references.yaml", "references.ipynb"
NAME = r"[A-Z][\w’'-]+"
CITATION = re.compile(rf"((?:{NAME}, )*{NAME} and {NAME}|{NAME} et al\.|{NAME}(?: \d)?)"   # who
                      r"(?:, \*[^*]+\*)?,? \(?((?:19\d|20[0-3])\d)\b\)?")                      # perhaps a title, and when
UNTOUCHED = re.compile(r"(`[^`\n]*`|\$[^$\n]*\$|!?\[[^\]]*\]\([^)]*\)|^#.*$|^---$)", re.M)    # code, formulas, links, headings
MONTHS = ("January February March April May June July August September October November December").split()


@cache
def entries() -> dict[str, dict[str, str]]:
    "What is listed: authors, title and perhaps a link, by the words with which it is cited."
    return yaml.safe_load(DATA.read_text(encoding="utf-8"))


def cited(found: re.Match, known: dict[str, dict[str, str]]) -> str:
    "The entry that a citation means; of `LXMERT, Tan and Bansal 2019` the name in front is not an author."
    names, key = found[1], f"{found[1]} {found[2]}"
    while key not in known and ", " in names:
        names = names.partition(", ")[2]
        key = f"{names} {found[2]}"
    return key if key in known else f"{found[1]} {found[2]}"


def citations(text: str, known: dict[str, dict[str, str]]) -> list[str]:
    "The entries that a text cites, known or not; what stands in headings, code and formulas is left alone."
    found = (match for part in UNTOUCHED.split(text)[::2] for match in CITATION.finditer(part))
    return [cited(match, known) for match in found if match[1] not in MONTHS]


def linked(text: str, page: str) -> str:
    "The same text, each citation a link to its entry on the page of references."
    known = entries()

    def link(found: re.Match) -> str:
        key = cited(found, known)
        return f"[{found[0]}]({page}#{anchor(key)})" if key in known else found[0]

    parts = UNTOUCHED.split(text)
    parts[::2] = [CITATION.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def anchor(key: str) -> str:
    "The address of an entry on its page, as `reader.slug` makes it of the heading."
    return re.sub(r"[^\w\s.-]", "", key.lower()).replace(" ", "-")


def readable(notebook: Path) -> str:
    "The prose of a notebook, and the docstrings and comments of its code."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(source if kind == "markdown" else "\n".join(re.findall(r'"[^"\n]*"|# .*', source))
                       for kind, source in sources)


def citing() -> dict[str, list[str]]:
    "Each entry that is cited, known or not: the notebooks that do it."
    known, found = entries(), defaultdict(list)
    for path in sorted(NOTEBOOKS.rglob("*.ipynb"), key=lambda path: (len(path.parts), path)):
        name = path.relative_to(NOTEBOOKS).as_posix()
        if name not in (PAGE, "api.ipynb") and ".ipynb_checkpoints" not in path.parts:
            for key in sorted(set(citations(readable(path), known))):
                found[key].append(name)
    return found


def title(name: str) -> str:
    "What a notebook is called."
    cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    return cells[0].source.splitlines()[0].removeprefix("# ")


def link(where: str) -> str:
    "An arXiv number, a DOI or an address, in Markdown."
    if where.startswith("doi:"):
        return f"[{where}](https://doi.org/{where.removeprefix('doi:')})"
    return f"[{posixpath.basename(where)}]({where})" if where.startswith("https:") else f"[arXiv:{where}](https://arxiv.org/abs/{where})"


def page() -> str:
    "All entries, each under a heading with the words that cite it."
    found, text = citing(), []
    for key, entry in entries().items():
        lessons = ", ".join(f"[{title(lesson)}]({lesson})" for lesson in found[key])
        where = f" {link(entry['link'])}." if "link" in entry else ""
        text.append(f"## {key}\n\n{entry['authors']} ({key[-4:]}): *{entry['title']}*.{where} Cited in {lessons}.")
    return "\n\n".join(text)


def problems() -> list[str]:
    "Citations without an entry, entries without a citation, and a page that is behind."
    known, found = entries(), citing()
    wrong = [f"{key} is cited in {', '.join(found[key])} and not in {DATA.name}" for key in sorted(found.keys() - known.keys())]
    wrong += [f"{key} is in {DATA.name} and nowhere cited" for key in known if key not in found]
    wrong += ["docs/references.yaml is not in order"] * (list(known) != sorted(known, key=str.lower))
    return wrong


def main() -> int:
    "Write or compare; 1 if anything is wrong."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    checking, wrong = parser.parse_args().check, problems()
    notebook = nbformat.read(NOTEBOOKS / PAGE, as_version=4)
    cell, = (cell for cell in notebook.cells if cell.id == "references")
    if not wrong and cell.source != page():
        if checking:
            wrong.append(f"nbs/{PAGE} is behind: run python docs/references.py")
        else:
            cell.source = page()
            nbformat.write(notebook, NOTEBOOKS / PAGE)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
