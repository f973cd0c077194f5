"""What can be wrong with a page. Each check returns sentences; none means that all is well."""

import re
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import urlopen

from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Error, Page

FIRST_VIEW = 1_500_000   # bytes at most, uncompressed
PHONE = {"width": 390, "height": 844}
RAW_MATHEMATICS = re.compile(r"\$[^$\n]{1,80}\$|\\[(\[]|\\[A-Za-z]{2,}")

DRAWN = """([formulas, diagrams]) =>
  document.querySelectorAll('mjx-container').length >= formulas &&
  document.querySelectorAll('.diagram svg').length >= diagrams"""

PROSE = """() => {
  const body = document.body.cloneNode(true);
  body.querySelectorAll('code, pre, script, style, svg, mjx-container, .diagram').forEach(e => e.remove());
  return body.textContent;
}"""

DIAGRAMS = """() => [...document.querySelectorAll('.diagram')].map(diagram => {
  const { width, height } = diagram.querySelector('svg')?.getBoundingClientRect() ?? { width: 0, height: 0 };
  const cut = [...diagram.querySelectorAll('foreignObject')].filter(label => label.firstElementChild &&
    label.firstElementChild.getBoundingClientRect().width > label.getBoundingClientRect().width + 1);
  const labels = cut.map(label => label.textContent);
  return { visible: width > 0 && height > 0, text: diagram.textContent, cut: labels };
})"""

IMAGES = """() => [...document.images].map(image => ({
  name: image.src.slice(0, 100),
  loaded: image.complete && image.naturalWidth > 0,
  alt: image.alt.trim(),
}))"""

WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .slice(0, 3).map(e => `${e.tagName.toLowerCase()}.${e.className}`)"""


def page_problems(browser: Browser, url: str, wait: float = 120) -> list[str]:
    "Open a page as a reader does, on a desk and on a phone, and say what is wrong with it."
    found: list[str] = []
    sizes: dict[str, int] = {}
    page = browser.new_page()
    page.on("response", lambda got: sizes.update({got.url: int(got.headers.get("content-length", 0))}))
    page.on("request", lambda request: found.extend(strangers(request.url)))
    page.on("console", lambda said: found.extend([f"the console says: {said.text}"] * (said.type == "error")))
    page.on("pageerror", lambda error: found.append(f"a script failed: {error}"))
    source = BeautifulSoup(urlopen(url).read(), "html.parser")
    formulas, diagrams = len(source.select(".math")), len(source.select("pre.mermaid"))
    page.goto(url, wait_until="load")
    try:
        page.wait_for_function(DRAWN, arg=[formulas, diagrams], timeout=1000 * wait)
    except Error:
        pass  # what is missing is counted below
    found += mathematics_problems(page, formulas) + diagram_problems(page, diagrams) + image_problems(page)
    found += weight_problems(sizes, diagrams)
    page.set_viewport_size(PHONE)
    if wide := page.evaluate(WIDE):
        found.append(f"scrolls sideways on a phone: {', '.join(wide)}")
    page.close()
    return [f"{urlsplit(url).path}: {problem}" for problem in found]


def strangers(url: str) -> list[str]:
    "Complain about a request that leaves the machine."
    parts = urlsplit(url)
    at_home = parts.scheme in ("data", "blob") or parts.hostname in ("127.0.0.1", "localhost")
    return [] if at_home else [f"asks the network for {url}"]


def weight_problems(sizes: dict[str, int], diagrams: int) -> list[str]:
    "Too much to wait for, or a large script that the page has no use for."
    total, largest = sum(sizes.values()), sorted(sizes, key=sizes.get)[-3:]
    found = [] if total < FIRST_VIEW else [f"the first view is {total / 1e6:.2f} MB, most of it {', '.join(largest)}"]
    return found + ["loads Mermaid for no diagram"] * (not diagrams and any("mermaid" in url for url in sizes))


def mathematics_problems(page: Page, formulas: int) -> list[str]:
    "Formulas that were not drawn."
    drawn = page.locator("mjx-container").count()
    found = [] if drawn == formulas else [f"{drawn} of {formulas} formulas were drawn"]
    found += [f"a formula is wrong: {text}" for text in page.locator("[data-mjx-error]").all_text_contents()]
    return found + [f"raw mathematics: {raw[0]}" for raw in RAW_MATHEMATICS.finditer(page.evaluate(PROSE))]


def diagram_problems(page: Page, diagrams: int) -> list[str]:
    "Diagrams that were not drawn, or whose labels do not fit."
    drawn = page.evaluate(DIAGRAMS)
    good = [diagram for diagram in drawn if diagram["visible"] and "Syntax error" not in diagram["text"]]
    found = [] if len(good) == diagrams else [f"{len(good)} of {diagrams} diagrams were drawn"]
    return found + [f"a diagram cuts the label {label!r}" for diagram in drawn for label in diagram["cut"]]


def image_problems(page: Page) -> list[str]:
    "Pictures that are missing, or that say nothing to a reader who cannot see them."
    images = page.evaluate(IMAGES)
    found = [f"the picture {image['name']} is missing" for image in images if not image["loaded"]]
    return found + [f"the picture {image['name']} has no alt text" for image in images if not image["alt"]]


def link_problems(site: Path) -> list[str]:
    "Links between pages that lead nowhere."
    soups = {path: BeautifulSoup(path.read_bytes(), "html.parser") for path in site.rglob("*.html")}
    anchors = {path: {tag["id"] for tag in soup.select("[id]")} for path, soup in soups.items()}
    found = []
    for path, soup in soups.items():
        for href in {tag["href"] for tag in soup.select("a[href]")}:
            parts = urlsplit(urljoin(path.as_uri(), href))
            target = Path(unquote(parts.path))
            if parts.scheme != "file":
                continue
            if not target.exists():
                found.append(f"{path.name}: the link {href} leads nowhere")
            elif parts.fragment and unquote(parts.fragment) not in anchors.get(target, ()):
                found.append(f"{path.name}: the link {href} leads to no place on its page")
    return found
