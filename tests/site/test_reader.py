"""The reader: from a notebook as nbdev writes it to a page that Sphinx can read."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from reader import Site, documented, markdown, read, slug

PAGES = {"index.ipynb": "index", "00_start.ipynb": "start", "museum/07_attention.ipynb": "museum/attention"}
SITE = Site("https://geminiq.example/geminiq", "someone/course", "trunk", PAGES,
            {"start": {"get_device", "clock"}, "museum/attention": {"scores"}})
FRONT = new_raw_cell("""---
description: 'A device,
  and a seed.'
output-file: start.html
title: Start here

---
""")


def shown(name: str, hashes: str = "###"):
    "A cell of show_doc, as nbdev leaves it behind."
    text = (f'---\n\n[source](https://code.example/device.py#L1){{target="_blank" style="float:right"}}\n\n'
            f"{hashes} {name}\n\n```python\ndef {name}():\n```\n\n*What it does.*")
    output = new_output("execute_result", {"text/markdown": text, "text/plain": "…"}, execution_count=1)
    return new_code_cell(f"#| echo: false\n#| output: asis\nshow_doc({name})", outputs=[output])


def picture(alt: str = "", plain: str = "plain"):
    "An output that is a picture."
    metadata = {"image/png": {"alt": alt}} if alt else {}
    return new_output("display_data", {"image/png": "AAAA", "text/plain": plain}, metadata=metadata)


def page(*cells, path: str = "00_start.ipynb"):
    "The cells of a page that has these after its title."
    return read(new_notebook(cells=[FRONT, *cells]), path, SITE).cells


def prose(text: str, path: str = "start") -> str:
    "What becomes of Markdown on a page."
    return markdown(text, path, SITE)


def headings(cells) -> list[str]:
    "The headings of a page, in order."
    return [line for cell in cells for line in cell.source.splitlines() if line.startswith("#")]


def test_the_front_matter_becomes_title_and_summary():
    lines = page()[0].source
    assert lines.startswith("# Start here\n")
    assert "{.summary}\nA device, and a seed." in lines


def test_a_lesson_leads_to_its_notebook():
    ways = page()[0].source
    assert "{download}`Download notebook <notebooks/00_start.ipynb>`" in ways
    assert "(https://colab.research.google.com/github/someone/course/blob/trunk/nbs/00_start.ipynb " in ways
    assert "git clone https://github.com/someone/course\ncd course\nmake lab\n" in ways
    assert "<../notebooks/museum/07_attention.ipynb>" in page(path="museum/07_attention.ipynb")[0].source
    assert "notebook" not in page(path="index.ipynb")[0].source


@pytest.mark.parametrize(("directive", "tag"), [
    ("echo: false", "remove-input"), ("include: false", "remove-cell"), ("output: false", "remove-output"),
])
def test_directives_become_tags(directive: str, tag: str):
    cell = page(new_code_cell(f"#| {directive}\nx = 1  #| not this"))[1]
    assert cell.metadata.tags == [tag]
    assert cell.source == "x = 1  #| not this"


def test_exported_source_is_shown():
    cell = page(new_code_cell('#| code-fold: show\n#| code-summary: "Exported source"\ndef f(): pass'))[1]
    assert cell.metadata.tags == []
    assert cell.source == "def f(): pass"


def test_folded_code_becomes_a_fold():
    cells = page(new_code_cell('#| code-fold: true\n#| code-summary: "Solution"\nx = "```"'))
    assert [cell.source.splitlines() for cell in cells[1:]] == [[
        "<details>", "<summary>Solution</summary>", "",
        "~~~~python", 'x = "```"', "~~~~", "", "</details>"]]


def test_folded_code_leaves_its_output_in_sight():
    cells = page(new_code_cell("#| code-fold: true\nshow()", outputs=[picture("A dot")]))
    assert "<summary>Show the code</summary>" in cells[1].source
    assert cells[2].metadata.tags == ["remove-input"]
    assert cells[2].metadata.mystnb.image.alt == "A dot"


def test_names_stand_below_the_prose_that_leads_to_them():
    cells = page(shown("first"), new_markdown_cell("## Where\n\n```\n# a comment\n```"), shown("Clock"),
                 shown("Clock.tick", "####"), new_markdown_cell("Some words."), shown("f"),
                 new_markdown_cell("### Deeper"), shown("Clock.tock", "####"))
    assert [line for line in headings(cells) if line != "# a comment"] == [
        "# Start here", "## first", "## Where", "### Clock", "#### Clock.tick", "### f", "### Deeper",
        "#### Clock.tock"]


def test_a_documented_name_keeps_its_source_and_underscores():
    text = page(shown("get_device"))[1].source
    assert text.startswith("## get\\_device\n\n{.source-link}\n[source](https://code.example/device.py#L1)\n")
    assert "---" not in text
    assert "def get_device():" in text


def test_a_documented_name_that_failed_stops_the_build():
    cell = shown("lost")
    cell.outputs = [new_output("error", ename="NameError", evalue="lost", traceback=[])]
    with pytest.raises(ValueError, match="NameError: lost"):
        page(cell)


def test_warnings_are_not_documentation():
    cell = shown("get_device")
    cell.outputs.insert(0, new_output("stream", name="stderr", text="a warning"))
    assert "a warning" not in page(cell)[1].source


def test_documented_names_are_known():
    notebook = new_notebook(cells=[FRONT, shown("get_device"), shown("Clock")])
    assert documented(notebook) == {"get_device", "clock"}


@pytest.mark.parametrize(("address", "expected"), [
    ("start.html#get_device", "start.ipynb#get_device"),
    ("start.html#clock.tick", "start.ipynb#clock"),    # the method is not documented, its class is
    ("start.html#_private", "start.ipynb"),
    ("museum/attention.html#scores", "museum/attention.ipynb#scores"),
    ("lost.html", "lost.ipynb"),                       # left for Sphinx to complain about
])
def test_documented_names_are_linked_on_the_site(address: str, expected: str):
    assert prose(f"[`f`]({SITE.address}/{address})") == f"[`f`]({expected})"


def test_links_lead_out_of_a_folder():
    here = "museum/attention"
    assert prose(f"[`f`]({SITE.address}/start.html#clock)", here) == "[`f`](../start.ipynb#clock)"
    assert prose("[x](../00_start.ipynb#where)", here) == "[x](../start.ipynb#where)"


def test_notebooks_are_linked_by_their_pages():
    assert prose("[x](00_start.ipynb) and [y](museum/07_attention.ipynb)") == \
        "[x](start.ipynb) and [y](museum/attention.ipynb)"
    assert prose("[x](33_lost.ipynb)") == "[x](33_lost.ipynb)"


@pytest.mark.parametrize(("start", "kind", "title"), [
    ('{.callout-tip title="Try it"}', "tip", "Try it"),
    ("{.callout-note}\n## Named", "note", "Named"),
    ("{.callout-warning}", "warning", "Warning"),
])
def test_callouts_become_admonitions(start: str, kind: str, title: str):
    text = prose(f"Before.\n\n::: {start}\nText.\n:::\n\nAfter.")
    assert text == f"Before.\n\n:::{{admonition}} {title}\n:class: {kind}\n\nText.\n:::\n\nAfter."


def test_a_collapsed_callout_becomes_a_fold():
    text = prose('::: {.callout-tip collapse="true"}\n## a < b\nSome *text*.\n:::')
    assert text.splitlines() == ["<details>", "<summary>a &lt; b</summary>", "",
                                 "Some *text*.", "", "</details>"]


def test_equations_and_references_to_them():
    assert prose("$$x$$ {#eq-soft-max}") == "$$x$$ (eq-soft-max)"
    assert prose("See @eq-soft-max.") == "See Equation {eq}`eq-soft-max`."


def test_dunder_headings_are_not_bold():
    assert prose("### Clock.__call__\n__bold__") == "### Clock.\\_\\_call\\_\\_\n__bold__"
    assert prose("### `Clock.__call__`") == "### `Clock.__call__`"


def test_figures_keep_their_alt_text():
    figure = prose('![Caption](a.png){width=50% fig-alt="A dot"}')
    assert figure == "```{figure} a.png\n:alt: A dot\n\nCaption\n```"
    assert prose("[x](y){target=_blank}") == "[x](y)"


@pytest.mark.parametrize("fence", ["```{mermaid}", "```mermaid"])
def test_diagrams_wait_to_be_drawn(fence: str):
    assert prose(f"{fence}\na --> b\n```") == '```{raw} html\n<pre class="mermaid">a --&gt; b\n</pre>\n```'


def test_code_is_left_alone():
    text = f"```\n[x](00_start.ipynb) {SITE.address}/start.html\n$$x$$ {{#eq-x}} @eq-x\n```"
    assert prose(text) == text


def test_every_picture_gets_its_own_alt_text():
    outputs = [picture("one"), new_output("stream", text="said"), picture(plain="two")]
    cells = page(new_code_cell("show()", outputs=outputs))
    assert [cell.metadata.mystnb.image.alt for cell in cells[1:]] == ["one", "two"]
    assert [len(cell.outputs) for cell in cells[1:]] == [2, 1]
    assert cells[2].metadata.tags == ["remove-input"]


def test_a_still_and_its_explorable_stay_together():
    alive = new_output("display_data", {"text/html": '<div data-explorable="a"></div><script type="module"></script>'})
    cells = page(new_code_cell("explore()", outputs=[picture("A still"), alive]))
    assert len(cells) == 2
    assert cells[1].outputs[1] == alive
    assert cells[1].metadata.mystnb.image.alt == "A still"


def test_alt_text_may_be_a_directive():
    cell = page(new_code_cell('#| fig-alt: "said here"\nshow()', outputs=[picture("said there")]))[1]
    assert cell.metadata.mystnb.image.alt == "said here"


@pytest.mark.parametrize(("heading", "anchor"), [
    ("Where: the device", "where-the-device"), ("get_device", "get_device"), ("Clock.tick", "clock.tick"),
    ("1. What it costs", "what-it-costs"), ("In float32?", "in-float32"), ("42", "section"),
])
def test_anchors_are_those_of_quarto(heading: str, anchor: str):
    assert slug(heading) == anchor
