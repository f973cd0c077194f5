"""The order of the course, the pages made from the course itself, and the README."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

import build_site
import geminiq
import readme
from conftest import ROOT
from geminiq import _modidx
from reader import Site

SIDEBAR = """website:
  sidebar:
    contents:
      - index.ipynb
      - section: "1 · First"
        contents: [00_start.ipynb]
"""


@pytest.fixture
def course(tmp_path: Path, monkeypatch) -> Path:
    "A course of two notebooks and their sidebar."
    (tmp_path / "_quarto.yml").write_text(SIDEBAR)
    for name in "index", "00_start":
        (tmp_path / "nbs" / f"{name}.ipynb").parent.mkdir(exist_ok=True)
        (tmp_path / "nbs" / f"{name}.ipynb").touch()
    monkeypatch.setattr(build_site, "ROOT", tmp_path)
    monkeypatch.setattr(build_site, "NOTEBOOKS", tmp_path / "nbs")
    return tmp_path


def test_the_sidebar_has_sections(course: Path):
    build_site.check_sidebar()
    assert build_site.sidebar() == [("", ["index.ipynb"]), ("1 · First", ["00_start.ipynb"])]


def test_a_notebook_outside_the_sidebar_stops_the_build(course: Path):
    (course / "nbs" / "museum").mkdir()
    (course / "nbs" / "museum" / "01_more.ipynb").touch()
    with pytest.raises(SystemExit, match=r"nbs/museum/01_more\.ipynb is not in the sidebar"):
        build_site.check_sidebar()


def test_a_sidebar_entry_without_a_notebook_stops_the_build(course: Path):
    (course / "nbs" / "00_start.ipynb").unlink()
    with pytest.raises(SystemExit, match=r"names 00_start\.ipynb, which is not in nbs"):
        build_site.check_sidebar()


def test_the_front_page_stands_in_its_own_sidebar():
    pages = {"index.ipynb": "index", "00_start.ipynb": "start"}
    assert build_site.toctree("", list(pages), pages).splitlines()[-3:] == ["self", "start", "```"]


def test_the_list_of_pages_for_language_models(course: Path):
    def described(title: str) -> nbformat.NotebookNode:
        return new_notebook(cells=[new_raw_cell(f"---\ntitle: {title}\ndescription: All of {title}.\n---")])

    site = Site("https://geminiq.example/course", "", "", {"index.ipynb": "index", "00_start.ipynb": "start"}, {})
    notebooks = {"index.ipynb": described("geminiq"), "00_start.ipynb": described("Start")}
    assert build_site.llms_txt(notebooks, site) == """# geminiq

> All of geminiq.

- [geminiq](https://geminiq.example/course/index.html): All of geminiq.

## 1 · First

- [Start](https://geminiq.example/course/start.html): All of Start.
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["api", "map"])
def test_a_page_made_from_the_course_shows_the_course_as_it_is(name: str):
    saved = nbformat.read(ROOT / "nbs" / f"{name}.ipynb", as_version=4)
    fresh = NotebookClient(nbformat.from_dict(saved), resources={"metadata": {"path": str(ROOT / "nbs")}}).execute()

    def said(notebook: nbformat.NotebookNode) -> list[str]:
        cells = [cell for cell in notebook.cells if not cell.id.startswith("example-")]   # may differ between machines
        data = [out.data for cell in cells for out in cell.get("outputs", []) if "data" in out]   # no progress, which is printed
        return [shown.get("text/markdown", shown["text/plain"]) for shown in data]

    assert said(saved) and said(saved) == said(fresh), f"run: jupyter execute --inplace nbs/{name}.ipynb; nbdev_clean"


def test_the_reference_holds_every_module():
    page = (ROOT / "nbs" / "api.ipynb").read_text()
    assert [module for module in _modidx.d["syms"] if f"`{module}`" not in page] == []


def test_the_reference_begins_with_an_example_of_each_name_of_the_front_door():
    page = nbformat.read(ROOT / "nbs" / "api.ipynb", as_version=4)
    shown = [cell.source.splitlines() for cell in page.cells if cell.id.startswith("example-")]
    assert {lines[0].removeprefix("### ") for lines in shown if lines[0].startswith("### ")} == set(geminiq.__all__)
    imported = [line for lines in shown for line in lines if line.startswith("from geminiq import ")]
    assert len(imported) == len(geminiq.__all__)
    examples = [cell for cell in page.cells if cell.id.startswith("example-") and "from geminiq import " in cell.source]
    assert all(cell.outputs for cell in examples)


def test_the_map_holds_every_lesson_in_order():
    lessons = [name for _, names in build_site.sidebar() for name in names if name[0].isdigit()]
    table = [line for line in (ROOT / "nbs" / "map.ipynb").read_text().splitlines() if '"| ' in line]
    assert [name for line in table for name in lessons if f"]({name})" in line] == lessons


def test_a_readme_from_a_notebook():
    shown = new_output("display_data", {"image/png": "AAAA", "text/plain": "plain"},
                       metadata={"image/png": {"alt": "A dot"}})
    said = new_output("stream", text="said\n")
    files = readme.readme_files(new_notebook(cells=[
        new_markdown_cell("# geminiq\n\n[x](07_attention.ipynb#why) [y](https://a.example) [z](../LICENSE)"),
        new_code_cell("#| hide\nhidden = 1", outputs=[said]),
        new_code_cell("#| echo: false\nshow()", outputs=[shown]),
        new_code_cell("print('said')", outputs=[said]),
        new_code_cell("quiet = 1"),
        new_markdown_cell('```{mermaid}\na --> b\n```\n\n![Caption](images/a.png){fig-alt="A line"}'),
    ]))
    assert files[Path("nbs/images/index-1.png")] == b"\0\0\0"
    assert files[Path("README.md")].decode() == """# geminiq

[x](nbs/07_attention.ipynb#why) [y](https://a.example) [z](LICENSE)

![A dot](nbs/images/index-1.png)

```python
print('said')
```

```text
said
```

```python
quiet = 1
```

```mermaid
a --> b
```

![A line](nbs/images/a.png)
"""
