"""Print the state of every notebook, and what must be mended; exit with 1 if anything must. With --run, measure the time."""

import argparse
import ast
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html.parser import HTMLParser
from math import ceil
from pathlib import Path
from statistics import median

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table

from machine import slowness

ROOT = Path(__file__).parents[1]
LARGEST = 1_000_000   # bytes of a notebook
FACTOR = 3            # how far a stated time may be from the measured one
LONGEST = 120         # seconds of a lesson on the slow laptop that times are stated for
MOMENT = 5            # seconds: "a few", and shorter times count as this
AMOUNTS = {"a few": MOMENT, "half a": 0.5, "a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
           "eight": 8, "nine": 9, "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
TIME = re.compile(rf"\bruns in (?:about )?({'|'.join(AMOUNTS)}|\d+) (second|minute)s?\b", re.I)
READING = {"a few minutes": 5, "ten minutes": 10, "a quarter of an hour": 15, "twenty minutes": 20, "half an hour": 30,
           "three quarters of an hour": 45, "an hour": 60, "an hour and a quarter": 75, "an hour and a half": 90}   # minutes
TO_READ = re.compile(rf"\b({'|'.join(sorted(READING, key=len, reverse=True))}) to read\b")
EXERCISE = re.compile(r"^#+ Exercise \d+ .*?(\d+) minutes\)", re.M)
FOLDED = re.compile(r"<details>.*?</details>", re.S)
EXPORT = re.compile(r"^#\|[ \t]*exports?[ \t]*$", re.M)
MODULE = re.compile(r"^#\|[ \t]*default_exp[ \t]+(\S+)", re.M)
FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.M | re.S)
NOT_PROSE = re.compile(r"\$\$.*?\$\$|\$[^$\n]*\$|\]\([^)]*\)|<[^>\n]*>", re.S)   # formulas, addresses, tags
NAMELESS_IMAGE = re.compile(r'!\[\s*\]\([^)]*\)(?!\{[^}]*fig-alt="[^"]+")')
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef
DEFINITIONS = *FUNCTIONS, ast.ClassDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Problem:
    "Something to mend in a notebook."
    cell: str            # its first line
    wrong: str
    remedy: str
    fails: bool = True   # or it is only worth a look


def notebooks() -> list[Path]:
    "Every notebook of the course."
    return sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


# Cells


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    "The cells with code."
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_lines(cell: NotebookNode) -> list[str]:
    "The lines of a cell, without directives and blank ones."
    return [line.strip() for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]


def label(cell: NotebookNode) -> str:
    "A cell by its first line, or its id."
    return (code_lines(cell) or [cell.get("id", "")])[0][:70]


def parse(cell: NotebookNode) -> ast.Module:
    "The Python of a cell; lines for IPython alone, such as %time and !ls, count as nothing."
    return ast.parse("" if cell.source.startswith("%%") else re.sub(r"^[%!].*", "", cell.source, flags=re.M))


def prose(notebook: NotebookNode) -> str:
    "All Markdown of a notebook, without its blocks of code."
    return FENCED.sub("", "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"))


# Every exported name has a test


def exported(cell: NotebookNode) -> dict[str, Definition]:
    "The public functions and classes that a cell gives to the package, without protocols, which have no code."
    found = [node for node in parse(cell).body if isinstance(node, DEFINITIONS)] if EXPORT.search(cell.source) else []
    return {node.name: node for node in found if not node.name.startswith("_") and not is_protocol(node)}


def is_protocol(node: Definition) -> bool:
    "Whether a definition only describes what others must have."
    return isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)


def own_cells(notebook: NotebookNode) -> list[NotebookNode]:
    "The cells with code that stay in the notebook."
    return [cell for cell in code_cells(notebook) if not EXPORT.search(cell.source)]


def has_check(tree: ast.AST) -> bool:
    "Whether code contains an assert, a call of assert_something, `raise AssertionError` or `pytest.raises`."
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).startswith("AssertionError"):
            return True
        if isinstance(node, ast.Call) and re.match(r"(\w+\.)*(assert_\w+|raises)$", ast.unparse(node.func)):
            return True
    return False


def untested(notebook: NotebookNode, in_tests: set[str]) -> list[Problem]:
    """The exported functions and classes that no check uses; `in_tests` holds the full names that tests/ imports.

    A name is used by a check if

    - a cell that is not exported and contains a check reads it, or reads a variable or draft that an earlier cell made with it;
    - a file of tests/ imports it (and an import without use is refused by ruff);
    - it is a class, and a name used by a check promises an instance of it: as what it returns, as a field, or as a subclass;
    - it is a command (`@app.command()`), and a string in a cell with a check begins with it, or has it after `geminiq`.

    To be called by exported code that has a test is not enough: such a helper gets a check of its own or a leading underscore.
    Registries, constants and type aliases are values and protocols have no code, so none of them needs a test.
    """
    cells = {name: cell for cell in code_cells(notebook) for name in exported(cell)}
    nodes = {name: node for cell in code_cells(notebook) for name, node in exported(cell).items()}
    module = MODULE.search("\n".join(cell.source for cell in notebook.cells))
    tested = {name for name in nodes if module and f"geminiq.{module[1]}.{name}" in in_tests}
    tested = with_promised(tested | used_by_checks(notebook, nodes), nodes)
    return [Problem(label(cell), f"{name} is exported, and no check uses it",
                    "check it in a cell that follows or in tests/, or give it a leading underscore")
            for name, cell in cells.items() if name not in tested]


def used_by_checks(notebook: NotebookNode, nodes: dict[str, Definition]) -> set[str]:
    "The exported names that the notebook's own checks use, by name, through a variable, or as a command."
    behind = {name: {name} for name in nodes}   # a variable: the exported names it was made with
    tested = set()
    for cell in own_cells(notebook):
        tree, used = parse(cell), set()
        for statement in tree.body:
            here = {name for read in names(statement, ast.Load) for name in behind.get(read, ())}
            written = {statement.name} if isinstance(statement, DEFINITIONS) else names(statement, ast.Store)
            behind |= dict.fromkeys(written, here)
            used |= here
        if has_check(tree):
            tested |= used | commands(tree, nodes)
    return tested


def names(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    "The variables that code reads (`ast.Load`) or writes (`ast.Store`)."
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}


def commands(tree: ast.AST, nodes: dict[str, Definition]) -> set[str]:
    "The commands that the strings in some code call."
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {name for name, node in nodes.items()
            if any(".command(" in ast.unparse(decorator) for decorator in node.decorator_list)
            and any(re.search(rf"(^|\bgeminiq ){name}( |$)", text) for text in texts)}


def with_promised(tested: set[str], nodes: dict[str, Definition]) -> set[str]:
    "The names tested, and the classes whose instances they hand out, and those that these hand out."
    more = {name for known in tested for name in promised(nodes[known]) & nodes.keys()} - tested
    return with_promised(tested | more, nodes) if more else tested


def promised(node: Definition) -> set[str]:
    "The names in what a function or the methods of a class return, in the types of its fields, and of its bases."
    parts = [part.returns for part in ast.walk(node) if isinstance(part, FUNCTIONS) and part.returns]
    if isinstance(node, ast.ClassDef):
        parts += node.bases
        parts += [part.annotation for part in ast.walk(node) if isinstance(part, ast.AnnAssign)
                  and (part in node.body or isinstance(part.target, ast.Attribute))]
    return {name for part in parts for name in re.findall(r"\w+", ast.unparse(part))}


def imported(folder: Path) -> set[str]:
    "The full names that the Python files of a folder import."
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in folder.rglob("*.py")]
    found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in found for alias in node.names}


def unchecked(notebook: NotebookNode) -> list[Problem]:
    "The exported cells with public names that no check follows before the next such cell."
    found, followed = [], False
    for cell in reversed(code_cells(notebook)):
        if exported(cell):
            found += [] if followed else [cell]
            followed = False
        elif not EXPORT.search(cell.source) and has_check(parse(cell)):
            followed = True
    return [Problem(label(cell), f"no check follows {', '.join(exported(cell))}", "check it right there", fails=False)
            for cell in reversed(found)]


# Every picture has words


class Images(HTMLParser):
    "Counts the images in HTML that have no alt text."

    def __init__(self, html: str):
        super().__init__()
        self.wordless = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.wordless += tag == "img" and not (dict(attrs).get("alt") or "").strip()


def is_sentence(text: str) -> bool:
    "Whether a text says something: three words or more, and not how Python shows an object, `<Figure size 640x480 …>`."
    return len(text.split()) >= 3 and not re.match(r"\W*<", text)


def wordless_in_markdown(text: str) -> int:
    "The number of images without alt text in Markdown."
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))
    return len(NAMELESS_IMAGE.findall(text)) + Images(text).wordless


def wordless_in_output(out: NotebookNode) -> int:
    "The number of pictures that an output shows without saying what is on them."
    data = out.get("data", {})
    told = [out.metadata.get(kind, {}).get("alt") or data.get("text/plain", "") for kind in data if kind.startswith("image/")]
    return (sum(not is_sentence(text) for text in told) + Images(data.get("text/html", "")).wordless
            + wordless_in_markdown(data.get("text/markdown", "")))


def wordless(cell: NotebookNode) -> int:
    "The number of pictures in a cell that nothing is said about."
    if cell.cell_type == "markdown":
        return wordless_in_markdown(cell.source)
    return sum(map(wordless_in_output, cell.get("outputs", [])))


def unseen(notebook: NotebookNode) -> list[Problem]:
    "The cells with pictures that some readers cannot see."
    return [Problem(label(cell), f"{count} {'picture' if count == 1 else 'pictures'} without alt text",
                    "say in a sentence what is to be seen: Picture(alt), ![alt](file), <img alt=…>")
            for cell in notebook.cells if (count := wordless(cell))]


# Every lesson says how long it takes


def header(notebook: NotebookNode) -> str:
    "What stands above the first heading of level 2."
    return " ".join(re.split(r"^## ", prose(notebook), flags=re.M)[0].split())


def stated_seconds(notebook: NotebookNode) -> float | None:
    "The time that stands above the first heading of level 2, as in `runs in about ten seconds`."
    if not (found := TIME.search(header(notebook))):
        return None
    amount, unit = found[1].lower(), found[2].lower()
    return (float(amount) if amount.isdigit() else AMOUNTS[amount]) * {"second": 1, "minute": 60}[unit]


def run(path: Path) -> NotebookNode:
    "A notebook after running all its cells in a fresh kernel."
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    return NotebookClient(notebook, timeout=1800, coalesce_streams=True, resources=resources).execute()


def timed(path: Path) -> float:
    "Run a notebook, and say so, for it may take a while: how long it takes on the slow laptop."
    print(f"running {shown(path)}", file=sys.stderr, flush=True)
    return measured_seconds(run(path)) / slowness()


def measured_seconds(notebook: NotebookNode) -> float:
    "The time that the cells of a notebook took that nbclient has just run; starting the kernel does not count."
    times = [cell.metadata["execution"] for cell in code_cells(notebook) if "execution" in cell.metadata]
    return sum((datetime.fromisoformat(time["iopub.status.idle"]) - datetime.fromisoformat(time["iopub.status.busy"]))
               .total_seconds() for time in times)


def time_problem(notebook: NotebookNode,
                 seconds: float,        # that it took, in those of the slow laptop
                 crowd: float = 1,      # how many times as long it may take because others compute, too
                 short: bool = False,   # whether the lesson was told not to train for minutes
                 ) -> str:
    "What is wrong with the time of a lesson, if anything; less than five seconds count as five."
    stated = stated_seconds(notebook)
    low, high = sorted([max(seconds, MOMENT), max(stated or seconds, MOMENT)])
    if high > FACTOR * crowd * low and not (short and high == stated):
        return f"it says that it takes about {stated:.0f} s, and it took {seconds:.0f} s of the slow laptop"
    if short and seconds > LONGEST * crowd:
        return f"it took {seconds:.0f} s of the slow laptop in its tests, more than {LONGEST} s"
    return ""


def in_words(seconds: float) -> str:
    "A time as a lesson states it."
    if seconds < 8:
        return "a few seconds"
    return f"about {round(seconds, -1):.0f} seconds" if seconds < 90 else f"about {seconds / 60:.0f} minutes"


def untimed(path: Path, notebook: NotebookNode, seconds: float | None) -> list[Problem]:
    "A missing time, which numbered lessons must have, or a wrong one."
    if stated_seconds(notebook) is None:
        lesson = bool(re.match(r"\d\d_", path.name)) and path.parent.name != "museum"
        return [Problem("header", "it does not say how long it takes",
                        f'write "runs in {in_words(seconds or 20)}" above the first heading of level 2', lesson)]
    if seconds is not None and (wrong := time_problem(notebook, seconds)):
        return [Problem("header", wrong, f'write "runs in {in_words(seconds)}"')]
    return []


def reading_minutes(notebook: NotebookNode) -> float:
    "How long a lesson takes to read, at 150 words and 15 lines of code a minute; folds are not counted."
    words = len(FOLDED.sub("", FENCED.sub("", prose(notebook))).split())
    shown = [cell.source for cell in code_cells(notebook) if not re.search(r"^#\| (export$|code-fold)", cell.source, re.M)]
    return words / 150 + sum(source.count("\n") + 1 for source in shown) / 15


def unread(path: Path, notebook: NotebookNode) -> list[Problem]:
    "A time to read that a lesson does not state, or states wrongly; and exercises of which the header says nothing."
    if not is_lesson(path):
        return []
    minutes, found = reading_minutes(notebook), TO_READ.search(header(notebook))
    near = min(READING, key=lambda words: abs(READING[words] - minutes))
    problems = []
    if not found or not 1 / 1.6 < READING[found[1]] / max(minutes, 5) < 1.6:
        problems.append(Problem("header", f"it takes about {minutes:.0f} minutes to read, and the header does not say so",
                                f'write "{near} to read"'))
    if EXERCISE.search(prose(notebook)) and "exercises" not in header(notebook):
        total = sum(map(int, EXERCISE.findall(prose(notebook))))
        problems.append(Problem("header", "it does not say how long its exercises take",
                                f"their headings say {total} minutes in all"))
    return problems


# What a lesson in full has


EXHIBITS = 8        # wrong solutions that a room of the museum has at least
SHOWING = 0.5       # of the cells with code that stay in the notebook, how many show something


def is_lesson(path: Path) -> bool:
    "Whether a notebook is a numbered lesson."
    return bool(re.match(r"\d\d_", path.name)) and path.parent.name != "museum"


def frame(path: Path, notebook: NotebookNode) -> dict[str, float]:
    "What a lesson offers: exercises, quiz, exhibits in the museum, pictures and live ones, and how many cells show something."
    room = path.parent / "museum" / path.name
    wrong = sum(cell.source.count("@museum.wrong(") for cell in code_cells(nbformat.read(room, 4))) if room.exists() else 0
    quiz = re.search(r"^##+ Quiz$(.*?)(?=^##? |\Z)", prose(notebook), re.M | re.S)
    outputs = [out.get("data", {}) for cell in code_cells(notebook) for out in cell.get("outputs", [])]
    own = own_cells(notebook)
    return {"exercises": len(EXERCISE.findall(prose(notebook))),
            "quiz": len(re.findall(r"^\*\*\d", quiz[1], re.M)) if quiz else 0,
            "exhibits": wrong, "pictures": sum("image/png" in data for data in outputs),
            "live": sum("data-explorable" in data.get("text/html", "") for data in outputs),
            "shown": sum(bool(cell.get("outputs")) for cell in own) / max(len(own), 1)}


def unframed(path: Path, notebook: NotebookNode) -> list[Problem]:
    "What a lesson with exercises still lacks; one without any is worth a look."
    if not is_lesson(path):
        return []
    found = frame(path, notebook)
    if not found["exercises"]:
        return [Problem("all", "it has no exercises", "give it two to five, before our code", fails=False)]
    least = {"exercises": 2, "quiz": 1, "exhibits": EXHIBITS, "pictures": 1, "shown": SHOWING}
    return [Problem("all", f"{name}: {found[name]:.2g}, and a lesson in full has {number}", "see CONTRIBUTING")
            for name, number in least.items() if found[name] < number]


# The report


def half_folded(notebook: NotebookNode) -> list[Problem]:
    "The cells that are folded on the page, and not in JupyterLab, or with another first line than their title."
    folded = [cell for cell in code_cells(notebook) if re.search(r"^#\| code-fold: true$", cell.source, re.M)]
    return [Problem(label(cell), "it is folded on the page, and open or without a title in JupyterLab",
                    '`#| code-summary: "…"` is its first line, and its metadata have `"jupyter": {"source_hidden": true}`')
            for cell in folded if not (cell.source.startswith("#| code-summary: ")
                                       and cell.metadata.get("jupyter", {}).get("source_hidden"))]


def too_large(path: Path) -> list[Problem]:
    "A notebook that is slow to open and to compare."
    size = path.stat().st_size
    return [Problem("all", f"it has {size / 1e6:.1f} MB, more than 1 MB", "draw less or smaller")] if size > LARGEST else []


def problems(path: Path, in_tests: set[str], seconds: float | None = None) -> list[Problem]:
    "All that is to be mended in a notebook; the stated time is compared only with a measured one."
    notebook = nbformat.read(path, as_version=4)
    return [*untested(notebook, in_tests), *unseen(notebook), *too_large(path), *untimed(path, notebook, seconds),
            *unread(path, notebook), *unframed(path, notebook), *unchecked(notebook), *half_folded(notebook)]


def row(path: Path, seconds: float | None) -> list[str]:
    "A notebook in the table."
    notebook = nbformat.read(path, as_version=4)
    lengths = sorted(len(code_lines(cell)) for cell in code_cells(notebook) if code_lines(cell)) or [0]
    times = ["–" if time is None else f"{time:.0f} s" for time in (stated_seconds(notebook), seconds)]
    figures = (len(re.findall(r"\w[\w’'-]*", NOT_PROSE.sub("", prose(notebook)))), len(notebook.cells), f"{median(lengths):g}",
               lengths[ceil(0.9 * len(lengths)) - 1], len(unchecked(notebook)), sum(map(wordless, notebook.cells)))
    return [shown(path), *map(str, figures), *times, f"{path.stat().st_size / 1000:.0f}"]


def shown(path: Path) -> str:
    "A notebook as it is named here."
    return os.path.relpath(path, ROOT / "nbs").removesuffix(".ipynb")


def table(rows: Sequence[list[str]]) -> Table:
    """The table of all notebooks.

    Half of the code cells have at most as many lines as `lines 50%` says, and 90% as `lines 90%`; `no check` counts the exported
    cells that no check follows, `no alt text` the pictures that nothing is said about.
    """
    result = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    result.add_column("\nnotebook", no_wrap=True)
    for title in ("\nwords", "\ncells", "lines\n50%", "lines\n90%", "no\ncheck", "no alt\ntext",
                  "time\nstated", "time\nhere", "\nkB"):
        result.add_column(title, justify="right", no_wrap=True)
    for cells in rows:
        result.add_row(*cells)
    return result


def frames(paths: Sequence[Path]) -> Table:
    "The table of what each lesson offers."
    result = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for title in ("lesson", "minutes", "exercises", "quiz", "exhibits", "pictures", "live", "show something"):
        result.add_column(title, justify="left" if title == "lesson" else "right", no_wrap=True)
    for path in filter(is_lesson, paths):
        notebook = nbformat.read(path, as_version=4)
        *counts, share = frame(path, notebook).values()
        result.add_row(shown(path), f"{reading_minutes(notebook):.0f}", *(f"{count or '–'}" for count in counts), f"{share:.0%}")
    return result


def sentences(found: dict[Path, list[Problem]], fails: bool) -> Iterator[str]:
    "The problems that must be mended, or the others, one line each."
    for path, listed in found.items():
        for problem in listed:
            if problem.fails == fails:
                yield f"  {shown(path)}, {problem.cell!r}: {problem.wrong}. Remedy: {problem.remedy}."


def main() -> int:
    "Print the table and the problems."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="all of the course if none is named")
    parser.add_argument("--run", action="store_true", help="run each notebook and measure its time; takes some minutes")
    arguments = parser.parse_args()
    paths, in_tests = arguments.notebooks or notebooks(), imported(ROOT / "tests")
    seconds = {path: timed(path) if arguments.run else None for path in paths}
    found = {path: problems(path, in_tests, seconds[path]) for path in paths}
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(table([row(path, seconds[path]) for path in paths]))
    console.print("\nWhat each lesson offers:", frames(paths))
    failing, others = list(sentences(found, True)), list(sentences(found, False))
    for title, lines in (("Must be mended", failing), ("Worth a look", others)):
        console.print("\n".join([f"\n{title}: {len(lines) or 'nothing'}", *lines]))
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
