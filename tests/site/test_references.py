"""The page of references: every citation has an entry, every entry a citation, and the site links them."""

from pathlib import Path

import nbformat
import pytest

import references
from reader import Site, markdown, slug

KEYS = ["Tan and Bansal 2019", "Hu et al. 2021", "Dao 2023", "Press, Smith and Lewis 2022", "Gemma 2 2024"]


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A list of two entries, and a lesson that cites one of them and a third."
    (tmp_path / "list.yaml").write_text('Dao 2023: {authors: A, title: B}\nHu et al. 2021: {authors: C, title: D, link: "1.2"}\n')
    cells = [nbformat.v4.new_markdown_cell("# A lesson\n\nIt follows Hu et al. (2021)."),
             nbformat.v4.new_code_cell('def f():\n    "As in Li et al. 2020."')]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_lesson.ipynb")
    monkeypatch.setattr(references, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(references, "DATA", tmp_path / "list.yaml")
    references.entries.cache_clear()
    yield tmp_path
    references.entries.cache_clear()


def test_the_course_cites_what_is_listed_and_lists_what_is_cited():
    assert references.problems() == []
    cells = nbformat.read(references.NOTEBOOKS / references.PAGE, as_version=4).cells
    assert [cell.source for cell in cells if cell.id == "references"] == [references.page()], "run docs/references.py"


@pytest.mark.parametrize(("text", "keys"), [
    ("so (Hu et al. 2021, section 3; Dao 2023).", ["Hu et al. 2021", "Dao 2023"]),
    ("Hu et al. (2021) and *LXMERT, Tan and Bansal 2019*", ["Hu et al. 2021", "Tan and Bansal 2019"]),
    ("(Press, Smith and Lewis 2022)", ["Press, Smith and Lewis 2022"]),
    ("Hu et al., *A title* (2021)", ["Hu et al. 2021"]),
    ("Gemma 2 (2024): a window", ["Gemma 2 2024"]),
    ("Nobody et al. 1999", ["Nobody et al. 1999"]),
    ("## GPT-2, 2019\n`Dao 2023` [Dao 2023](x) $Dao 2023$ in November 2022, Learn 2048 pieces", []),
])
def test_what_counts_as_a_citation(text: str, keys: list[str]):
    assert references.citations(text, {key: {} for key in KEYS}) == keys


def test_what_is_missing_or_too_much_is_named(course: Path):
    assert references.problems() == ["Li et al. 2020 is cited in 01_lesson.ipynb and not in list.yaml",
                                     "Dao 2023 is in list.yaml and nowhere cited"]


def test_an_entry_names_the_lessons_that_cite_it(course: Path):
    assert references.page().split("\n\n")[-1] == \
        "C (2021): *D*. [arXiv:1.2](https://arxiv.org/abs/1.2). Cited in [A lesson](01_lesson.ipynb)."


def test_the_site_links_citations(course: Path):
    site = Site("", "", "", {"references.ipynb": "references"}, {})
    said = markdown("As Hu et al. (2021) say.\n\n```\nHu et al. 2021\n```", "workshop/tool", site)
    assert said.startswith("As [Hu et al. (2021)](../references.ipynb#hu-et-al.-2021) say.") and "\nHu et al. 2021\n" in said


def test_links_lead_to_the_headings_of_the_page():
    assert [key for key in references.entries() if references.anchor(key) != slug(key)] == []
