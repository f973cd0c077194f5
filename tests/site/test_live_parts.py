"""The switches of a model's parts, on a page of their own: what they say is what PyTorch computes."""

import re
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from conftest import ROOT
from geminiq.utils.checkpointing import load_course_model
from geminiq.utils.device import UserError
from geminiq.utils.live_parts import _lost, _token, explore_parts
from page_checks import PHONE, WIDE
from test_chat_explorable import KERNEL
from test_live_inside import INHERITED, OTHER, STORY, ask, same, small, visible  # noqa: F401   (small is a fixture)

ARTIFACTS = ROOT / "test-artifacts" / "site"
PARTS = ["attention 0", "feed-forward 0", "attention 1", "feed-forward 1"]
NAMES = ["0.attention", "0.feed_forward", "1.attention", "1.feed_forward"]


def switch(page: Page, name: str) -> Locator:
    return page.get_by_role("switch", name=name, exact=True)


def wait(page: Page) -> None:
    "Until the page has computed what was switched."
    expect(page.locator("[aria-busy=false]")).to_be_attached()


def measured(page: Page) -> None:
    "Until it has been silent in every part once."
    expect(page.locator(".part > small", has_text=re.compile("^…$"))).to_have_count(0)


def shown(page: Page, line: str) -> list[tuple[str, list[str]]]:
    "The tokens of a line, and the percentages under each."
    chips = [chip.split("\n") for chip in page.get_by_role("list", name=line).locator("span").all_inner_texts()]
    return [(name, re.split(" [→↘] ", note)) for name, note in chips if "%" in note]


def check_answers(page: Page, found: dict[str, Any], said: dict[str, Any]) -> None:
    "Both lines say what Python computes, the broken one up to where it is cut."
    whole, broken = (told["tokens"][told["read"]:] for told in (found, said))
    lines = shown(page, "The whole model says")
    assert [name.strip() for name, _ in lines] == [visible(token).strip() for token in whole]
    for (_, (before, after)), chance, left in zip(lines, found["chances"], said["left"], strict=True):
        assert same(before, chance) and same(after, left)
    lines = shown(page, "The broken model says")
    assert [name.strip() for name, _ in lines] == [visible(token).strip() for token in broken[:24]]
    for (_, (chance,)), expected in zip(lines, said["chances"], strict=False):
        assert same(chance, expected)


def test_without_parts_it_says_what_pytorch_says_without_them(draw, small):  # noqa: F811
    page = draw(explore_parts(*small, STORY))
    ask(page, OTHER)
    off: set[str] = set()
    for name, part in [*zip(PARTS, NAMES, strict=True), (PARTS[0], NAMES[0]), (PARTS[3], NAMES[3]), (PARTS[1], NAMES[1])]:
        switch(page, name).click()
        off ^= {part}
        wait(page)
        python = explore_parts(*small, OTHER, without=sorted(off))
        check_answers(page, python.found, python.said)
        expect(switch(page, name)).to_have_attribute("aria-checked", "false" if part in off else "true")


def test_what_each_part_alone_costs_is_what_pytorch_computes(draw, small):  # noqa: F811
    page = draw(explore_parts(*small, STORY))
    ask(page, OTHER)
    measured(page)
    found = explore_parts(*small, OTHER).found
    page.get_by_text("What each part's silence costs").click()
    rows = [row.split("\t") for row in page.locator("details tbody tr").all_inner_texts()]
    for part, left in enumerate(found["parts"]):
        strip = page.locator(".strip").nth(part).locator("i")
        heights = strip.evaluate_all("bars => bars.map(bar => parseFloat(bar.style.getPropertyValue('--left')))")
        assert heights == pytest.approx(left, abs=0.1001)
        falls = sorted((before - after for before, after in zip(found["chances"], left, strict=True)), reverse=True)
        assert falls[0] > 1
        if falls[0] - falls[1] > 0.3:
            at = _lost(found, left)
            assert rows[part][:2] == [PARTS[part], _token(found, at)]
            assert same(rows[part][2], found["chances"][at]) and same(rows[part][3], left[at])
            assert page.locator(".part > small").nth(part).inner_text().startswith(f"{_token(found, at)}: ")


def test_the_first_state_is_the_one_of_python(draw, small):  # noqa: F811
    explorable = explore_parts(*small, STORY, without=["1", "0.attention"])
    assert explorable.without == ["1.attention", "1.feed_forward", "0.attention"]
    page = draw(explorable)
    check_answers(page, explorable.found, explorable.said)
    expect(page.locator(".status")).to_contain_text("Without attention 0 and layer 1 it says")
    for name in ("layer 1", *PARTS):
        expect(switch(page, name)).to_have_attribute("aria-checked", "true" if name == "feed-forward 0" else "false")
    assert page.locator(".strip i").count() == 4 * len(explorable.found["ids"])


def test_a_layer_has_a_switch_for_both(draw, small):  # noqa: F811
    page = draw(explore_parts(*small, STORY))
    status, whole = page.locator(".status"), page.get_by_role("button", name="Switch all on")
    expect(status).to_contain_text("Nothing is switched off. It says")
    expect(whole).to_be_disabled()
    switch(page, "attention 1").click()
    expect(switch(page, "layer 1")).to_have_attribute("aria-checked", "true")     # half of it
    expect(status).to_contain_text("Without attention 1 it")
    switch(page, "layer 1").click()
    expect(status).to_contain_text("Without layer 1 it")
    expect(switch(page, "feed-forward 1")).to_have_attribute("aria-checked", "false")
    switch(page, "layer 0").click()
    expect(status).to_contain_text("Without all its parts it")
    switch(page, "layer 1").click()
    expect(status).to_contain_text("Without layer 0 it")
    whole.click()
    expect(status).to_contain_text("Nothing is switched off. It says")
    expect(page.get_by_role("list", name="The broken model says")).to_have_count(0)


def test_the_keyboard_reaches_every_switch(draw, small):  # noqa: F811
    page = draw(explore_parts(*small, STORY))
    page.get_by_role("button", name="Read").focus()
    for layer in range(2):
        for name in (f"layer {layer}", f"attention {layer}", f"feed-forward {layer}"):
            page.keyboard.press("Tab")
            expect(switch(page, name)).to_be_focused()
            assert switch(page, name).evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Space")
    expect(page.locator(".status")).to_contain_text("Without feed-forward 1 it")
    page.keyboard.press("Enter")
    expect(page.locator(".status")).to_contain_text("Nothing is switched off")
    expect(switch(page, "feed-forward 1")).to_be_focused()


def test_a_new_text_is_read_by_the_broken_model_too(draw, small):  # noqa: F811
    page = draw(explore_parts(*small, STORY, without=["0.feed_forward"]))
    for text in (OTHER, STORY, OTHER):
        page.get_by_role("textbox", name="text").fill(text)
        page.keyboard.press("Enter")
        switch(page, "attention 1").click()     # while it reads, or afterwards
    expect(page.locator(".note")).to_contain_text("computed by this page")
    expect(page.locator(".status")).to_contain_text("Without feed-forward 0 and attention 1 it")
    measured(page)
    wait(page)
    python = explore_parts(*small, OTHER, without=["0.feed_forward", "1.attention"])
    check_answers(page, python.found, python.said)


def test_a_choice_in_python_reaches_the_page_and_back(draw, small):  # noqa: F811
    explorable = explore_parts(*small, STORY)
    page = draw(explorable)
    page.evaluate(KERNEL, {"text": STORY, "without": [], "key": explorable.key})
    page.evaluate("kernel.set('without', ['1.attention'])")
    expect(page.locator(".status")).to_contain_text("Without attention 1 it")
    switch(page, "feed-forward 0").click()
    assert page.evaluate("kernel.get('without')") == ["1.attention", "0.feed_forward"]


def test_a_text_too_long_is_refused_in_words(draw, small):  # noqa: F811
    page = draw(explore_parts(*small, STORY))
    page.get_by_role("textbox", name="text").fill("The lamp is here. " * 60)
    page.keyboard.press("Enter")
    expect(page.locator(".note")).to_contain_text("this model reads at most 139: shorten the text")
    ask(page, OTHER)


def test_without_an_engine_the_first_state_stands(draw, small):  # noqa: F811
    page = draw(explore_parts(*small, STORY), "<script>globalThis.fetch = async () => ({ ok: false })</script>PICTURE")
    before = shown(page, "The whole model says")
    switch(page, "attention 1").click()
    expect(page.locator(".status")).to_contain_text("run the cell in JupyterLab")
    assert shown(page, "The whole model says") == before
    page.get_by_role("button", name="Switch all on").click()
    expect(page.locator(".status")).to_contain_text("Nothing is switched off")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_stands_on_light_and_dark(draw, small, scheme: str):  # noqa: F811
    page = draw(explore_parts(*small, STORY, title="A small model"), viewport=PHONE, color_scheme=scheme, reduced_motion="reduce")
    ask(page, OTHER)
    switch(page, "layer 1").click()
    expect(page.locator(".status")).to_contain_text("Without layer 1")
    measured(page)
    assert page.evaluate(WIDE) == []
    assert page.locator(".status").evaluate(INHERITED)
    for button in page.get_by_role("switch").all():     # what stands in it has room
        assert button.evaluate("e => e.scrollWidth <= e.clientWidth")
    boxes = [switch(page, name).bounding_box() for name in ("layer 0", "attention 0", "layer 1", "attention 1")]
    assert all(above["y"] + above["height"] < below["y"] for above, below in pairwise(boxes))
    page.screenshot(path=ARTIFACTS / f"parts-{scheme}.png", full_page=True)


def test_without_scripts_there_is_a_table_of_the_parts(draw, small):  # noqa: F811
    explorable = explore_parts(*small, STORY)
    page = draw(explorable, java_script_enabled=False)
    assert page.locator("tr").count() == len(explorable.table) == 5


def test_a_part_that_is_not_there_is_refused(small):  # noqa: F811
    for name, words in ("2.attention", "there is no part"), ("1.ffn", "there is no part"), ("1.3", "no switch for a head"):
        with pytest.raises(UserError, match=words):
            explore_parts(*small, STORY, without=[name])


def test_the_course_model_loses_a_digit(draw):
    course = load_course_model()
    page = draw(explore_parts(course.model, course.tokenizer, STORY))
    ask(page, "What is 27 plus 15?")
    switch(page, "attention 3").click()
    expect(page.locator(".status")).to_contain_text("Without attention 3 it says: “27 plus 15 is 40.” “2” in “42” falls from")
    assert page.locator(".differs").inner_text().startswith("0")
