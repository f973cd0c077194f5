"""Every page of the site, in a real browser without a network."""

from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from build_site import sphinx_build
from conftest import ROOT, served
from page_checks import PHONE, link_problems, page_problems
from reader import Site, read

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAGatMtQAAAABJRU5ErkJggg=="
EXPLORABLE = """<div data-explorable="dot" style="height: 3rem"></div><script type="module">
document.querySelector("[data-explorable]").textContent = "alive";</script>"""
SAMPLE = [  # what an author may write, and no lesson need have yet
    new_raw_cell("---\noutput-file: index.html\ntitle: A sample\n---"),
    new_markdown_cell("## Your turn\n\n$$x^2$$ {#eq-square}\n\nSee @eq-square."),
    new_code_cell("def mask(n): ..."),
    new_markdown_cell('::: {.callout-tip collapse="true" title="Hint"}\nWhere $t \\ge s$.\n\n$$x^2$$\n:::'),
    new_markdown_cell('::: {.callout-tip collapse="true" title="Help by symptom"}\n'
                      "| you see | why |\n|---|---|\n| $0$ | `triu` |\n\n- `tril`\n:::"),
    new_code_cell('#| code-fold: true\n#| code-summary: "Solution"\ndef mask(n): return torch.ones(n, n).tril().bool()'),
    new_code_cell("explore()", outputs=[
        new_output("display_data", {"image/png": DOT, "text/plain": "dot"}, metadata={"image/png": {"alt": "A dot"}}),
        new_output("display_data", {"text/html": EXPLORABLE, "text/plain": "dot"})]),
]

ARTIFACTS = ROOT / "test-artifacts" / "site"
GOOD = """<!doctype html><html><head><title>Good</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"></head>
<body><p id="here">It costs $5. <code>$x$ \\frac</code> <a href="#here">here</a></p>
<img alt="a dot" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="></body></html>"""
BAD = {  # what is put into the good page: what must then be said of it
    '<img alt="far" src="https://example.org/far.png">': "asks the network for",
    "<script>console.error('oh no')</script>": "the console says: oh no",
    "<script>undefined.oh</script>": "a script failed",
    '<span class="math">x</span>': "0 of 1 formulas were drawn",
    "<p>Let $x^2$ be</p>": "raw mathematics: $x^2$",
    r"<p>Let \(x be</p>": r"raw mathematics: \(",
    r"<p>Let \frac be</p>": r"raw mathematics: \frac",
    '<pre class="mermaid">flowchart LR</pre>': "0 of 1 diagrams were drawn",
    '<pre class="mermaid"></pre><div class="diagram"><svg width="9" height="9">Syntax error</svg></div>':
        "0 of 1 diagrams were drawn",
    '<div class="diagram"><svg width="9" height="9"><foreignObject width="5" height="5">'
    '<div style="width: 50px">label</div></foreignObject></svg></div>': "a diagram cuts the label 'label'",
    '<img alt="lost" src="lost.png">': "is missing",
    '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=">': "has no alt text",
    '<div style="width: 1000px">wide</div>': "scrolls sideways",
    f"<!-- {'much ' * 300_000}-->": "the first view is 1.50 MB",
    '<link rel="stylesheet" href="mermaid.css">': "loads Mermaid for no diagram",
}


@pytest.fixture(scope="module")
def sample(site: Path, tmp_path_factory: pytest.TempPathFactory):
    "The address of a page made from the sample."
    pages, built = tmp_path_factory.mktemp("pages"), tmp_path_factory.mktemp("built") / "html"
    notebook = new_notebook(cells=SAMPLE, metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}})
    nbformat.write(read(notebook, "sample.ipynb", Site("", "", "", {"sample.ipynb": "index"}, {})), pages / "index.ipynb")
    assert sphinx_build(pages, built) == 0
    with served(built) as address:
        yield f"{address}/index.html"


def test_every_page_is_whole(browser, site: Path, address: str):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    problems = [problem for page in pages for problem in page_problems(browser, f"{address}/{page}")]
    assert not problems, "\n".join(problems)
    assert len(pages) > len(list(ROOT.glob("nbs/*.ipynb")))


def test_a_sample_is_whole(browser, sample: str):
    assert page_problems(browser, sample) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_folds_of_text_and_of_code_are_one_stack(browser, sample: str, scheme: str):
    page = browser.new_page(color_scheme=scheme, viewport=PHONE)
    page.goto(sample)
    looks = page.eval_on_selector_all("article details", """folds => folds.map(fold => {
        const { color, backgroundColor, borderLeftColor, fontSize } = getComputedStyle(fold);
        const { left, width, top, height } = fold.getBoundingClientRect();
        return { top, height, look: [color, backgroundColor, borderLeftColor, fontSize, left, width] };
    })""")
    page.screenshot(path=ARTIFACTS / f"folds-{scheme}.png", full_page=True)
    page.close()
    assert [fold["look"] for fold in looks] == [looks[0]["look"]] * 3
    for above, below in pairwise(looks):
        assert -2 < below["top"] - above["top"] - above["height"] < 1


def test_an_explorable_lives_beside_its_still(browser, sample: str):
    page = browser.new_page(viewport=PHONE)
    page.goto(sample)
    output = page.locator(".cell_output")
    assert output.count() == 1
    assert output.locator("img").get_attribute("alt") == "A dot"
    explorable = output.locator("[data-explorable]")
    assert explorable.text_content() == "alive"
    assert explorable.bounding_box()["width"] == page.locator("article details").first.bounding_box()["width"]
    page.close()


def test_a_lesson_opens_elsewhere_by_keyboard(browser, address: str):
    page = browser.new_page(viewport=PHONE)
    page.goto(f"{address}/attention.html")
    ways = page.locator(".ways-in")
    ways.get_by_role("link", name="Download notebook").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.href").endswith("/nbs/07_attention.ipynb")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert ways.get_by_text("make lab").is_visible()
    page.close()


def test_every_link_leads_somewhere(site: Path):
    problems = link_problems(site)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("word", "found"), [("device", True), ("qwertyuiop", False)])
def test_search(browser, address: str, word: str, found: bool):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q={word}")
    page.locator("#search-results .search-summary", has_text="search").wait_for()
    page.wait_for_function("document.querySelector('.search-summary').textContent.match(/found|not match/)")
    assert (page.locator("#search-results li").count() > 0) == found
    page.close()


def test_diagrams_turn_dark_with_the_page(browser, address: str):
    page = browser.new_page(color_scheme="light")
    page.goto(f"{address}/index.html")
    page.locator(".diagram svg").first.wait_for()
    light = page.locator(".diagram").first.inner_html()
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("light => document.querySelector('.diagram').innerHTML !== light", arg=light)
    page.close()


@pytest.mark.parametrize("name", ["index", "map", "attention", "api"])
@pytest.mark.parametrize(("look", "options"), [
    ("light", {"color_scheme": "light", "viewport": {"width": 1600, "height": 1000}}),
    ("dark", {"color_scheme": "dark", "viewport": {"width": 1600, "height": 1000}}),
    ("phone", {"color_scheme": "light", "viewport": PHONE}),
])
def test_screenshots_for_people(browser, address: str, name: str, look: str, options: dict):
    page = browser.new_page(**options)
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    page.screenshot(path=ARTIFACTS / f"{name}-{look}.png", full_page=True)
    page.close()


def test_a_good_page_has_no_problems(browser, tmp_path: Path):
    (tmp_path / "page.html").write_text(GOOD)
    with served(tmp_path) as address:
        assert page_problems(browser, f"{address}/page.html") == []
    assert link_problems(tmp_path) == []


@pytest.mark.parametrize(("flaw", "message"), BAD.items(), ids=BAD.values())
def test_a_flawed_page_is_found_out(browser, tmp_path: Path, flaw: str, message: str):
    (tmp_path / "page.html").write_text(GOOD.replace("</body>", flaw + "</body>"))
    with served(tmp_path) as address:
        problems = page_problems(browser, f"{address}/page.html", wait=0.2)
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize("href", ["lost.html", "#nowhere", "page.html#nowhere"])
def test_a_broken_link_is_found_out(tmp_path: Path, href: str):
    (tmp_path / "page.html").write_text(GOOD + f'<a href="{href}">there</a>')
    assert len(link_problems(tmp_path)) == 1
