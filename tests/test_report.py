"""The report on the notebooks: each limit broken by one small notebook and kept by another; and the course keeps them all."""

import sys
from pathlib import Path

import pytest
from nbformat import NotebookNode, write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import report
from report import measured_seconds, problems, time_problem, unchecked, untested

HEADER = new_markdown_cell("# A lesson\n\nIt takes a few minutes to read, runs in a few seconds, and ends well.\n\n## A part")
DOUBLE = '''
def double(x):
    "Twice as much."
    return 2 * x
'''


def lesson(*cells: str | NotebookNode, header: NotebookNode = HEADER) -> NotebookNode:
    "A notebook of a module `made_up`, with these cells; text is code."
    cells = [cell if isinstance(cell, NotebookNode) else new_code_cell(cell) for cell in cells]
    return new_notebook(cells=[header, new_code_cell("#| default_exp made_up"), *cells])


def export(code: str) -> str:
    "Code as an exported cell."
    return f"#| exports\n{code}"


def saved(folder: Path, notebook: NotebookNode, name: str = "07_lesson.ipynb") -> Path:
    "The notebook in a file."
    write(notebook, folder / name)
    return folder / name


def shows(data: dict, metadata: dict | None = None) -> NotebookNode:
    "A cell that shows something."
    return new_code_cell("picture", outputs=[new_output("display_data", data, metadata=metadata or {})])


def names(notebook: NotebookNode, *in_tests: str) -> list[str]:
    "The exported names without a test."
    return [problem.wrong.split()[0] for problem in untested(notebook, set(in_tests))]


def failing(path: Path, seconds: float | None = None) -> list[str]:
    "What must be mended in a notebook."
    return [problem.wrong for problem in problems(path, set(), seconds) if problem.fails]


def test_the_course_keeps_every_limit():
    in_tests = report.imported(report.ROOT / "tests")
    found = {path: problems(path, in_tests) for path in report.notebooks()}
    assert len(found) > 20
    broken = list(report.sentences(found, fails=True))
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize("check", [
    "assert double(2) == 4", "assert_close(double(2), 4)", "torch.testing.assert_close(double(2), 4)",
    "with pytest.raises(TypeError): double(None)",
    "try: double(None)\nexcept TypeError: pass\nelse: raise AssertionError('nothing is not a number')",
])
def test_every_kind_of_check_counts(check: str):
    assert names(lesson(export(DOUBLE), check)) == []


@pytest.mark.parametrize("no_check", [
    "double(2)", "print(double(2))", "assert True", "'assert double'", "assert other.double(2)", "raise ValueError(double(2))",
    "from made_up import double\nassert True", "double = max\nfour = double(4, 1)", "x = double(2)\nx = 3",
    export("assert double(2) == 4"),
])
def test_what_is_not_a_check_of_a_name(no_check: str):
    assert names(lesson(export(DOUBLE), no_check, "assert 1 + 1 == 2")) == ["double"]


@pytest.mark.parametrize("use", ["four = double(2)", "def four(): return double(2)", "with double(2) as four: pass",
                                 "two = double(1)\nfour = two + two", "for four in [double(2)]: pass"])
def test_a_name_may_be_checked_through_a_variable_of_an_earlier_cell(use: str):
    assert names(lesson(export(DOUBLE), use, "assert four")) == []
    assert names(lesson(export(DOUBLE), use, "four = 4\nassert four")) == ["double"]
    assert names(lesson(export(DOUBLE), "assert four", use)) == ["double"]


@pytest.mark.parametrize("promise", [
    "def make() -> list[Thing]: return [Thing()]", "class Maker:\n    def make(self) -> 'Thing': return Thing()\nmake = Maker",
    "class Make(NamedTuple):\n    thing: Thing", "class Make(Thing): pass",
    "class Make:\n    def __init__(self): self.things: list[Thing] = []",
    "class Other(Thing): pass\ndef make() -> Other: return Other()",
])
def test_a_class_may_be_checked_through_an_instance_that_another_name_gives(promise: str):
    untouched, used = (lesson(export("class Thing: pass"), export(promise), f"{check}\nassert True")
                       for check in ("", "make, Make, Maker"))
    assert "Thing" in names(untouched) and names(used) == []
    local = export("class Make:\n    def make(self):\n        thing: Thing = Thing()\n        return thing.size")
    assert names(lesson(export("class Thing: pass"), local, "assert Make().make()")) == ["Thing"]


def test_a_helper_of_a_tested_function_needs_a_test_of_its_own_or_an_underscore():
    twice = "def {0}(x): return 2 * x\ndef double(x) -> int:\n    found: {0} = {0}(x)\n    return found"
    assert names(lesson(export(twice.format("helper")), "assert double(2) == 4")) == ["helper"]
    assert names(lesson(export(twice.format("_helper")), "assert double(2) == 4")) == []


def test_a_command_is_checked_by_the_words_that_call_it():
    command = export("@app.command()\ndef train(): pass")
    for check in ('run("train --seed 3")', 'run(f"train {options}")', 'run(f"{python} -m geminiq train")'):
        assert names(lesson(command, f"assert {check}")) == []
    for check in ('run("retrain")', 'run("a train leaves")', 'run("trains")'):
        assert names(lesson(command, f"assert {check}")) == ["train"]
    assert names(lesson(export("def train(): pass"), 'assert run("train")')) == ["train"]


def test_values_types_and_protocols_need_no_test():
    assert names(lesson(export("PARTS = Registry('part')\nNumber = int | float\nclass Sized(Protocol): pass"))) == []


def test_the_files_of_tests_count_by_module_and_name(tmp_path: Path):
    (tmp_path / "test_made_up.py").write_text("from geminiq.made_up import double\nfrom geminiq.other import half")
    assert names(lesson(export(DOUBLE), export("def half(x): return x / 2")), *report.imported(tmp_path)) == ["half"]


def test_a_name_without_a_test_fails_and_the_cell_is_named(tmp_path: Path):
    problem, = (problem for problem in problems(saved(tmp_path, lesson(export(DOUBLE))), set()) if problem.fails)
    assert problem.cell == "def double(x):" and problem.wrong.startswith("double is exported")
    assert failing(saved(tmp_path, lesson(export(DOUBLE), "assert double(2) == 4"))) == []


def test_an_exported_cell_without_a_check_before_the_next_is_told_but_does_not_fail():
    other = export("def half(x): return x / 2")
    late = unchecked(lesson(export(DOUBLE), "double(2)", other, export("import math"), "assert half(double(2)) == 2"))
    assert [(problem.cell, problem.fails) for problem in late] == [("def double(x):", False)]
    assert unchecked(lesson(export(DOUBLE), "assert double(2) == 4", other, "assert half(2) == 1")) == []


SENTENCE = "Loss over 60 steps: from 5.8 to 0.5."


@pytest.mark.parametrize("cell", [
    shows({"image/png": "AAAA"}), shows({"image/png": "AAAA", "text/plain": "<Figure size 640x480 with 1 Axes>"}),
    shows({"image/svg+xml": "<svg/>", "text/plain": "[<matplotlib.lines.Line2D at 0x7f>]"}),
    shows({"image/png": "AAAA", "text/plain": "a figure"}), shows({"text/html": '<p><img src="a.png"></p>'}),
    shows({"text/html": '<img src="a.png" alt=" "/>'}), shows({"text/markdown": "![](a.png)"}),
    new_markdown_cell("Here: ![](a.png)"), new_markdown_cell("![ ](a.png){width=3}"), new_markdown_cell('<img src="a.png">'),
])
def test_a_picture_without_words_fails(cell: NotebookNode, tmp_path: Path):
    assert failing(saved(tmp_path, lesson(cell))) == ["1 picture without alt text"]


@pytest.mark.parametrize("cell", [
    shows({"image/png": "AAAA", "text/plain": SENTENCE}), shows({"image/png": "AAAA"}, {"image/png": {"alt": SENTENCE}}),
    shows({"text/html": f'<img alt="{SENTENCE}" src="a.png"><script>"<img>"</script>'}), shows({"text/plain": "3"}),
    new_markdown_cell(f"![{SENTENCE}](a.png)"), new_markdown_cell(f'![](a.png){{fig-alt="{SENTENCE}"}}'),
    new_markdown_cell("Write `![](file)`, or\n\n```\n![](file)\n<img>\n```"),
])
def test_a_picture_with_words_passes(cell: NotebookNode, tmp_path: Path):
    assert failing(saved(tmp_path, lesson(cell))) == []


def test_a_notebook_over_one_megabyte_fails(tmp_path: Path):
    assert failing(saved(tmp_path, lesson(new_markdown_cell("a" * 1_000_000)))) == ["it has 1.0 MB, more than 1 MB"]
    assert failing(saved(tmp_path, lesson(new_markdown_cell("a" * 990_000)))) == []


def timed(text: str) -> NotebookNode:
    "A notebook whose header says this."
    return lesson(header=new_markdown_cell(f"# A lesson\n\nIt takes a few minutes to read.\n\n{text}\n\n"
                                           "## A part\n\nIt runs in three minutes."))


@pytest.mark.parametrize(("text", "seconds"), [
    ("It runs in a few seconds, and", 5), ("runs in about ten seconds", 10), ("runs in\nabout half a minute.", 30),
    ("Runs in a minute", 60), ("runs in about two minutes", 120), ("runs in 45 seconds", 45), ("runs in 1 second", 1),
    ("It is quick.", None), ("runs in no time", None), ("runs in about umpteen seconds", None),
    ("```\nruns in ten seconds\n```", None),
])
def test_the_time_is_read_from_the_words_above_the_first_part(text: str, seconds: float | None):
    assert report.stated_seconds(timed(text)) == seconds


@pytest.mark.parametrize(("text", "seconds", "off"), [
    ("runs in about ten seconds", 31, True), ("runs in about ten seconds", 29, False), ("runs in about ten seconds", 0.1, False),
    ("runs in half a minute", 9, True), ("runs in half a minute", 11, False), ("runs in a few seconds", 0.1, False),
    ("runs in a few seconds", 14, False), ("runs in a few seconds", 16, True), ("runs in 1 second", 14, False),
])
def test_a_time_off_by_more_than_a_factor_of_three_fails(text: str, seconds: float, off: bool, tmp_path: Path):
    assert bool(time_problem(timed(text), seconds)) == off
    assert bool(failing(saved(tmp_path, timed(text)), seconds)) == off
    assert failing(saved(tmp_path, timed(text))) == []   # not measured


@pytest.mark.parametrize(("text", "seconds", "crowd", "wrong"), [
    ("runs in about eight minutes", 30, 1, ""), ("runs in about eight minutes", 121, 1, "more than 120 s"),
    ("runs in about eight minutes", 121, 2, ""), ("runs in about ten seconds", 61, 2, "it says"),
    ("It is quick.", 130, 1, "more than 120 s"),
])
def test_in_the_tests_a_long_lesson_is_short(text: str, seconds: float, crowd: float, wrong: str):
    found = time_problem(timed(text), seconds, crowd, short=True)
    assert wrong in found and bool(wrong) == bool(found)


def test_only_lessons_must_say_how_long_they_take(tmp_path: Path):
    (tmp_path / "museum").mkdir()
    silent = timed("It is quick.")
    assert failing(saved(tmp_path, silent)) == ["it does not say how long it takes"]
    for name in ("index.ipynb", "museum/07_lesson.ipynb"):
        path = saved(tmp_path, silent, name)
        assert failing(path) == [] and problems(path, set())[0].wrong == "it does not say how long it takes"


def test_the_remedy_is_a_sentence_that_can_be_read():
    for seconds in (0.1, 8, 40, 89, 100, 700):
        assert not time_problem(timed(f"runs in {report.in_words(seconds)}"), seconds, crowd=0.55)


def test_only_the_time_of_cells_is_measured(tmp_path: Path):
    path = saved(tmp_path, lesson("from time import sleep\nsleep(0.3)", "sleep(0.3)"))
    assert 0.6 <= measured_seconds(report.run(path)) < 5


def test_the_command_prints_a_table_and_the_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    good, bad = saved(tmp_path, lesson("1 + 1"), "00_good.ipynb"), saved(tmp_path, lesson(export(DOUBLE)), "01_bad.ipynb")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["report.py", str(good), "--run"])
    assert report.main() == 0
    assert "Must be mended: nothing" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["report.py", str(good), str(bad)])
    assert report.main() == 1
    printed = capsys.readouterr().out
    assert "Must be mended: 1" in printed and "'def double(x):': double is exported, and no check uses it. Remedy:" in printed
    assert printed.count("5 s") == 2 and "–" in printed


def to_read(header: str, *more: NotebookNode) -> list[str]:
    "What the report says of a header with this sentence."
    notebook = lesson(*more, header=new_markdown_cell(f"# A lesson\n\n{header} It runs in a few seconds.\n\n## A part"))
    return [problem.wrong for problem in report.unread(Path("07_lesson.ipynb"), notebook)]


def test_a_lesson_says_how_long_it_takes_to_read():
    words, code = new_markdown_cell("word " * 3000), new_code_cell("x = 1\n" * 149 + "x")      # 20 and 10 minutes
    assert to_read("It takes half an hour to read.", words, code) == []
    for header in ("", "It takes an hour to read.", "It takes a quarter of an hour to read."):
        assert to_read(header, words, code) == ["it takes about 30 minutes to read, and the header does not say so"]
    folds = new_markdown_cell("<details><summary>Hint</summary>" + "word " * 3000 + "</details>")
    assert to_read("It takes a few minutes to read.", folds) == []


def test_a_lesson_says_how_long_its_exercises_take():
    exercises = new_markdown_cell("### Exercise 1 · One (easy, 10 minutes)\n\nDo.\n\n#### Exercise 2 · Two (hard, 30 minutes)")
    assert to_read("It takes a few minutes to read.", exercises) == ["it does not say how long its exercises take"]
    assert to_read("It takes a few minutes to read, and forty minutes for the exercises.", exercises) == []


def test_a_fold_is_one_in_jupyterlab_too(tmp_path: Path):
    good = new_code_cell('#| code-summary: "Solution"\n#| code-fold: true\nx = 1', metadata={"jupyter": {"source_hidden": True}})
    open_there = new_code_cell(good.source)
    nameless = new_code_cell('#| code-fold: true\n#| code-summary: "Solution"\nx = 1', metadata=good.metadata)
    assert not any("open or without a title" in wrong for wrong in failing(saved(tmp_path, lesson(good))))
    for cell in (open_there, nameless):
        assert any("open or without a title" in wrong for wrong in failing(saved(tmp_path, lesson(cell))))
