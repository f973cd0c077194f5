"""The order of the course, and the README."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import build_site
import readme

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
