"""Every page of the site, in a real browser without a network."""

from pathlib import Path

import pytest

from conftest import ROOT, served
from page_checks import PHONE, link_problems, page_problems

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
}


def test_every_page_is_whole(browser, site: Path, address: str):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    problems = [problem for page in pages for problem in page_problems(browser, f"{address}/{page}")]
    assert not problems, "\n".join(problems)
    assert len(pages) > len(list(ROOT.glob("nbs/*.ipynb")))


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


@pytest.mark.parametrize("name", ["index", "start", "attention"])
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


@pytest.mark.parametrize(("flaw", "message"), BAD.items())
def test_a_flawed_page_is_found_out(browser, tmp_path: Path, flaw: str, message: str):
    (tmp_path / "page.html").write_text(GOOD.replace("</body>", flaw + "</body>"))
    with served(tmp_path) as address:
        problems = page_problems(browser, f"{address}/page.html", wait=0.2)
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize("href", ["lost.html", "#nowhere", "page.html#nowhere"])
def test_a_broken_link_is_found_out(tmp_path: Path, href: str):
    (tmp_path / "page.html").write_text(GOOD + f'<a href="{href}">there</a>')
    assert len(link_problems(tmp_path)) == 1
