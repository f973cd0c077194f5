"""What axe-core, which knows the rules of the web for people who cannot see or point, finds on the pages and in the pictures."""

import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from build_site import VENDOR, fetch_scripts
from conftest import ROOT
from geminiq.generation.chat import Conversation
from geminiq.generation.sampling import Sampling
from geminiq.utils.chat_explorable import explore_chat
from geminiq.utils.checkpointing import load_course_model
from geminiq.utils.config import ModelConfig
from geminiq.utils.explorables import Explorable, explore_attention, explore_mask, explore_softmax
from geminiq.utils.live import explore_model, explore_reading
from geminiq.utils.live_confidence import explore_confidence
from geminiq.utils.live_guessing import explore_guessing
from geminiq.utils.live_inside import explore_cache, explore_stream
from geminiq.utils.live_parts import explore_parts
from geminiq.utils.live_text import explore_sampling, explore_tokens
from geminiq.utils.live_valley import explore_valley
from geminiq.utils.sliders import explore_budget, explore_rotation
from page_checks import PHONE
from test_confidence import answer

ARTIFACTS = ROOT / "test-artifacts" / "site"
FOUND = """async (rules) => {
  const only = rules.length ? { runOnly: { type: "rule", values: rules } } : {};
  const { violations } = await axe.run(document, { resultTypes: ["violations"], ...only });
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact)).map(({ id, help, nodes }) =>
    `${id} (${help}), ${nodes.length} times, first ${nodes[0].html.slice(0, 200)}: ${nodes[0].failureSummary}`);
}"""
TEXT = "Mia took the lamp. She went to the garden. Who has the lamp?"


@pytest.fixture(scope="module")
def axe() -> str:
    fetch_scripts()
    return (VENDOR / "axe-core" / "axe.min.js").read_text()


def violations(page: Page, axe: str) -> list[str]:
    "What is serious, in light and in dark; only colors change between them."
    page.emulate_media(color_scheme="light")
    page.add_script_tag(content=axe)
    light = page.evaluate(FOUND, [])
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)      # colors fade from one to the other
    return light + page.evaluate(FOUND, ["color-contrast"])


@pytest.mark.parametrize("part", range(4))     # all at once would take too long for one test
def test_every_page(part: int, browser, site: Path, address: str, axe: str):
    page, problems = browser.new_page(), []
    for name in sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))[part::4]:
        page.goto(f"{address}/{name}", wait_until="networkidle")
        problems += [f"{name}: {problem}" for problem in violations(page, axe)]
    page.close()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("html", "problem"), [
    ("<button></button>", "button-name"), ('<p style="color: #999">grey', "color-contrast"),
    ("<style>@media (prefers-color-scheme: dark) { p { color: #333 } }</style><p>dark", "color-contrast")])
def test_what_is_wrong_is_found(draw, axe: str, html: str, problem: str):
    page = draw(explore_mask(torch.ones(2, 2).tril().bool(), ["the", "cat"]))
    assert violations(page, axe) == []
    page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", html)
    assert problem in "".join(violations(page, axe))


def course():
    model, _, tokenizer = load_course_model()
    return model, tokenizer


def chat() -> Explorable:
    talk = Conversation(*course(), Sampling(temperature=0))
    list(talk.reply(TEXT))
    return explore_chat(talk)


def middle_of(locator: Locator) -> None:
    "Tap in the middle, where a slider then stands, or the row of a map."
    locator.scroll_into_view_if_needed()
    locator.tap()


def tap_a_row(page: Page) -> None:
    middle_of(page.get_by_role("slider", name="the row to look at"))
    expect(page.locator(".status")).to_contain_text("“cat”")


def tap_a_token(page: Page) -> None:
    page.get_by_role("radiogroup", name="answer 1").get_by_role("radio").nth(1).tap()
    page.get_by_role("radiogroup", name="which head").get_by_role("radio").nth(4).tap()
    expect(page.get_by_role("radiogroup", name="which head").get_by_role("radio").nth(4)).to_be_checked()


def break_it(page: Page) -> None:
    tap_a_token(page)
    page.get_by_text("Break it").tap()
    page.get_by_role("button", name="layer 2", exact=True).tap()
    expect(page.locator(".note")).to_contain_text("computed by this page")
    middle_of(page.get_by_role("slider", name="temperature"))
    expect(page.get_by_role("button", name="Draw again")).to_be_enabled()


def write_and_tap(page: Page) -> None:
    page.get_by_role("textbox", name="text").tap()
    page.keyboard.type("And ")
    expect(page.get_by_role("radio").filter(has_text="And")).to_be_visible()
    middle_of(page.get_by_role("slider", name="head"))
    expect(page.locator(".status")).to_contain_text(re.compile("layer 0, head [23]"))


def go_back(page: Page) -> None:
    middle_of(page.get_by_role("slider", name="merges"))
    expect(page.locator(".status")).to_contain_text("Merge ")


def draw_a_hundred(page: Page) -> None:
    page.get_by_role("button", name="Draw 100 times").tap()
    expect(page.locator("td.draws", has_text=re.compile(r"[1-9]")).first).to_be_visible()


def tap_a_cell(page: Page) -> None:
    cell = page.get_by_role("button", name=re.compile("^layer 1, at")).first
    cell.tap()
    expect(page.locator(".status")).to_contain_text("after layer 1")


def tap_a_step(page: Page) -> None:
    page.get_by_role("slider", name="step").press("Home")
    middle_of(page.get_by_role("slider", name="step"))
    expect(page.locator(".status")).to_contain_text("is read, and looks at")


def switch_off(page: Page) -> None:
    page.get_by_role("switch", name="attention 1").tap()
    expect(page.locator(".status")).to_contain_text("Without attention 1")
    page.get_by_text("What each part's silence costs").tap()


def tap_the_slider(page: Page) -> None:
    middle_of(page.get_by_role("slider", name="factor"))
    expect(page.locator("label output")).to_have_text("2.5")


def tap_a_place(page: Page) -> None:
    middle_of(page.get_by_role("slider", name="the key stands at"))
    expect(page.locator(".status")).to_contain_text(re.compile("the key at 3[12]"))


def tap_a_size(page: Page) -> None:
    middle_of(page.get_by_role("slider", name="layers L"))
    expect(page.get_by_role("combobox")).to_have_value("your own")


def tap_letters(page: Page) -> None:
    keys = page.get_by_role("group", name="letters to tap")
    for letter in "xl":
        keys.get_by_role("button", name=f"“{letter}”").tap()
    expect(page.locator(".status")).to_contain_text("Right, at the 2nd guess.")
    page.get_by_role("button", name="Tell me").tap()
    keys.get_by_role("button", name="“q”").tap()
    page.get_by_text("The letters in numbers").tap()


def race_down(page: Page) -> None:
    middle_of(page.get_by_role("slider", name="learning rate"))
    page.get_by_role("checkbox", name="each at its own best rate").tap()
    page.get_by_role("checkbox", name="momentum").tap()
    page.locator(".map").tap(position={"x": 60, "y": 60})
    expect(page.locator(".status")).to_contain_text("each at its own best rate for 100 steps: SGD")
    page.get_by_text("The heights in numbers").tap()


def put_a_limit(page: Page) -> None:
    middle_of(page.get_by_role("slider", name="answers only if at least so sure"))
    expect(page.locator(".status")).to_contain_text("At least ")
    page.get_by_role("slider", name="an answer").press("Home")
    expect(page.locator(".examples h4")).to_contain_text("left out")
    page.get_by_text("The limits in numbers").tap()


THREE = ["the", "cat", "sat"]
PICTURES = {
    "mask": (lambda: explore_mask(torch.ones(3, 3).tril().bool(), THREE), tap_a_row),
    "softmax": (lambda: explore_softmax(torch.arange(3.), THREE), tap_the_slider),
    "rotation": (explore_rotation, tap_a_place),
    "budget": (lambda: explore_budget(ModelConfig()), tap_a_size),
    "attention": (lambda: explore_attention(torch.ones(2, 2, 3, 3).tril() / torch.arange(1, 4)[:, None], THREE), tap_a_row),
    "chat": (chat, tap_a_token),
    "model": (lambda: explore_model(*course(), TEXT, "Where is Mia?", title="Ask"), break_it),
    "reading": (lambda: explore_reading(*course(), TEXT), write_and_tap),
    "tokens": (lambda: explore_tokens(*course(), TEXT), go_back),
    "sampling": (lambda: explore_sampling(*course(), TEXT), draw_a_hundred),
    "stream": (lambda: explore_stream(*course(), TEXT), tap_a_cell),
    "cache": (lambda: explore_cache(*course(), TEXT), tap_a_step),
    "parts": (lambda: explore_parts(*course(), TEXT), switch_off),
    "guessing": (lambda: explore_guessing(*course()), tap_letters),
    "valley": (explore_valley, race_down),
    "confidence": (lambda: explore_confidence([answer(i, i % 5 > 0) for i in range(40)],
                                             [1 - 0.8**i for i in range(40)]), put_a_limit),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_first_and_in_use_by_touch(draw, axe: str, name: str):
    make, use = PICTURES[name]
    page = draw(make(), has_touch=True, viewport=PHONE)
    assert violations(page, axe) == []
    use(page)
    assert violations(page, axe) == []
    page.screenshot(path=ARTIFACTS / f"touch-{name}.png", full_page=True)
