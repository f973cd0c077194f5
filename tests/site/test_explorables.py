"""The interactive pictures on a page of their own, in a real browser without a network or a kernel."""

import nbformat
import pytest
import torch
from playwright.sync_api import Page, expect

import geminiq.utils.chat_explorable
import geminiq.utils.live
import geminiq.utils.live_confidence
import geminiq.utils.live_guessing
import geminiq.utils.live_inside
import geminiq.utils.live_parts
import geminiq.utils.live_text
import geminiq.utils.sliders  # noqa: F401   (the kinds there are)
from conftest import ROOT
from geminiq.utils.explorables import Explorable, explore_attention, explore_mask, explore_softmax
from page_checks import PHONE, WIDE

ARTIFACTS = ROOT / "test-artifacts" / "site"
WORDS = "the cat that was asleep purred".split()
IMAGE = '<img alt="still" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=">'
OUTPUTS = {  # where a still stands before the picture
    "JupyterLab": '<div class="jp-OutputArea"><div class="jp-OutputArea-child">STILL</div><div>PICTURE</div></div>',
    "Sphinx": '<div class="cell_output">STILL<div class="output">PICTURE</div></div>',
    "Quarto": '<div class="cell"><div class="cell-output-display"><p>STILL</p></div><div><div>PICTURE</div></div></div>',
}
MOVE = """slider => {
  const start = performance.now();
  slider.stepUp();
  slider.dispatchEvent(new Event('input'));
  document.body.getBoundingClientRect();   // until it is laid out
  return performance.now() - start;
}"""


def causal_weights(*shape: int) -> torch.Tensor:   # (…, T, T)
    "Attention that looks back only, the same each time."
    scores = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(shape[-2:]).triu(1).bool(), float("-inf")).softmax(-1)


HEADS = causal_weights(2, 4, 6, 6)


def chip(page: Page, number: int):
    "A token in the line of tokens that can look."
    return page.get_by_role("radio").nth(number)


def slider(page: Page, name: str):
    "The slider for the layer or the head."
    return page.get_by_role("slider", name=name, exact=True)


def shows(page: Page, start: str) -> None:
    "The status line says this, or comes to say it."
    expect(page.locator(".status")).to_contain_text(start)


def in_words(row: torch.Tensor) -> str:
    "The three largest weights of a row, as the status line tells them."
    percent = (100 * row).round().int()
    keys = [key for key in percent.argsort(descending=True, stable=True)[:3] if percent[key] > 0]
    return ", ".join(f"“{WORDS[key]}” {percent[key]}%" for key in keys)


def test_the_numbers_are_those_of_the_model(draw):
    page = draw(explore_attention(HEADS, WORDS))
    for layer, head in (0, 0), (0, 3), (1, 2):
        slider(page, "layer").fill(str(layer))
        slider(page, "head").fill(str(head))
        for query, name in enumerate(WORDS):
            chip(page, query).hover()
            row = HEADS[layer, head, query]
            shows(page, f"layer {layer}, head {head}: “{name}” looks at {in_words(row)}")
            notes = page.locator(".chips small").all_inner_texts()
            assert [note.strip() for note in notes] == [f"{100 * weight:.0f}%" if weight >= 0.005 else "" for weight in row]


def test_pointing_shows_and_clicking_keeps(draw):
    page = draw(explore_attention(HEADS[0, 0], WORDS))
    cells = page.locator(".cells")
    second = {"x": 40, "y": 1.5 * cells.bounding_box()["height"] / 6}
    cells.hover(position=second)
    shows(page, "“cat” looks at")
    page.mouse.move(0, 0)
    shows(page, "“purred” looks at")
    cells.click(position=second)
    page.mouse.move(0, 0)
    shows(page, "“cat” looks at")
    chip(page, 3).hover()
    shows(page, "“was” looks at")
    chip(page, 3).click()
    chip(page, 0).hover()
    page.mouse.move(0, 0)
    shows(page, "“was” looks at")


def test_the_keyboard_reaches_everything(draw):
    page = draw(explore_attention(HEADS, WORDS))
    for key, start in ("Tab", "layer 0, head 0"), ("ArrowRight", "layer 1, head 0"), ("Tab", "layer 1"), \
            ("ArrowRight", "layer 1, head 1"), ("Tab", "“purred”"), ("ArrowUp", "“asleep”"), ("Home", "“the”"), \
            ("ArrowUp", "“the”"), ("Tab", "“the”"), ("ArrowRight", "“cat”"), ("ArrowRight", "“that”"), ("End", "“purred”"):
        page.keyboard.press(key)
        shows(page, start)
    expect(chip(page, 5)).to_be_focused()
    assert chip(page, 5).evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(6)
    assert page.locator("tbody tr").first.inner_text().split("\t") == ["the", "the 100%"]


def test_a_key_counts_even_while_the_mouse_rests_on_the_picture(draw):
    page = draw(explore_attention(HEADS[0, 0], WORDS))
    chip(page, 2).click()
    page.keyboard.press("ArrowRight")
    shows(page, "“was”")


def test_a_click_in_the_overview_chooses_layer_and_head(draw):
    page = draw(explore_attention(HEADS, WORDS))
    box = page.locator(".overview").bounding_box()
    page.locator(".overview").click(position={"x": 0.6 * box["width"], "y": 0.7 * box["height"]})
    shows(page, "layer 1, head 2:")
    assert slider(page, "head").input_value() == "2"
    outline = page.locator(".box").bounding_box()
    assert outline["x"] == pytest.approx(box["x"] + box["width"] / 2, abs=1)


def test_the_table_follows_the_head(draw):
    page = draw(explore_attention(HEADS, WORDS))
    page.get_by_text("The strongest three").click()
    slider(page, "head").fill("3")
    row = page.locator("tbody tr").nth(5).inner_text()
    assert row.split("\t") == ["purred", in_words(HEADS[0, 3, 5]).replace("“", "").replace("”", "")]


def test_one_text_looks_at_another(draw):
    page = draw(explore_attention(HEADS[0, 0, 2:5], WORDS, queries=["qui", "dormait", "ronronna"]))
    expect(page.get_by_role("radio")).to_have_count(3)
    chip(page, 0).click()
    shows(page, f"“qui” looks at {in_words(HEADS[0, 0, 2])}")
    page.screenshot(path=ARTIFACTS / "explore-cross.png", full_page=True)


def test_rows_that_are_moments_have_a_slider(draw):
    page = draw(explore_attention(HEADS[..., 3:, :], WORDS, queries=["1", "20", "300"], title="Learning", rows="step"))
    shows(page, f"layer 0, head 0: at step 300, it looks at {in_words(HEADS[0, 0, 5])}")
    expect(page.locator("label:has-text('step') output")).to_have_text("300")
    slider(page, "step").press("ArrowLeft")
    shows(page, f"layer 0, head 0: at step 20, it looks at {in_words(HEADS[0, 0, 4])}")
    expect(page.locator("label:has-text('step') output")).to_have_text("20")
    expect(page.get_by_role("radio")).to_have_count(0)     # the slider takes their place
    page.locator(".cells").press("Home")
    expect(slider(page, "step")).to_have_value("0")
    page.screenshot(path=ARTIFACTS / "explore-moments.png", full_page=True)


def test_a_row_of_zeros_looks_at_nothing(draw):
    shows(draw(explore_attention(torch.zeros(6, 6), WORDS)), "“purred” looks at nothing")


def test_masks(draw):
    causal = torch.ones(6, 6).tril().bool()
    page = draw(explore_mask({"causal": causal, "window of 2": causal.triu(-1)}, WORDS, title="Two masks"))
    shows(page, "“purred” may look at 6 of 6: the, cat, that, was, asleep, purred")
    page.get_by_role("combobox", name="mask").select_option("window of 2")
    shows(page, "“purred” may look at 2 of 6: asleep, purred")
    page.locator(".cells").press("Home")
    shows(page, "“the” may look at 1 of 6: the")
    assert page.locator(".chips small").all_inner_texts() == ["✓", "×", "×", "×", "×", "×"]
    chip(page, 1).hover()
    shows(page, "“cat” may look at 2 of 6: the, cat")
    page.screenshot(path=ARTIFACTS / "explore-mask.png", full_page=True)


def test_softmax_of_scores_that_grow(draw):
    page = draw(explore_softmax(torch.tensor([2., 1., 0.]), ["cat", "dog", "stone"], title="Three scores", label="strength"))
    for factor in (1.0, 0.0, 5.0, 2.5):
        slider(page, "strength").fill(str(factor))
        weights = torch.softmax(factor * torch.tensor([2., 1., 0.]), -1)
        shown = [float(text.strip("<%")) for text in page.locator(".chips small").all_inner_texts()]
        assert shown == pytest.approx((100 * weights).tolist(), abs=0.5)   # of ten and more, the whole percent
    shows(page, "“cat” gets 92%")
    slider(page, "strength").press("Home")
    shows(page, "all get 33%")
    page.screenshot(path=ARTIFACTS / "explore-softmax.png", full_page=True)


def test_labels_are_text_and_blanks_are_seen(draw):
    page = draw(explore_attention(torch.eye(3), ["<b>", " & ", "</script>\n"]))
    shows(page, "“</script>↵” looks at “</script>↵” 100%")
    expect(chip(page, 1)).to_contain_text("␣&␣")


def test_a_large_picture_is_light_and_quick(draw, capsys):
    tokens = [f"token{i}" for i in range(64)]
    explorable = explore_attention(causal_weights(12, 12, 64, 64), tokens, title="Twelve layers of twelve heads")
    assert len(explorable.html()) < 1_000_000
    page = draw(explorable)
    times = [slider(page, "head").evaluate(MOVE) for _ in range(9)]
    shows(page, "head 9:")
    with capsys.disabled():
        print(f"\n144 heads of 64 tokens: {len(explorable.html()) / 1000:.0f} kB, a move {sorted(times)[4]:.0f} ms")
    assert sorted(times)[4] < 250   # far below on an idle machine
    page.screenshot(path=ARTIFACTS / "explore-large.png", full_page=True)


@pytest.mark.parametrize("name", ["one head", "heads", "large", "mask", "softmax"])
def test_it_fits_a_phone(draw, name: str):
    large = explore_attention(causal_weights(12, 12, 64, 64), [f"token{i}" for i in range(64)])
    page = draw({"one head": explore_attention(HEADS[0, 0], WORDS), "heads": explore_attention(HEADS, WORDS), "large": large,
                 "mask": explore_mask(torch.ones(6, 6).bool(), WORDS),
                 "softmax": explore_softmax(torch.arange(6.), WORDS)}[name], viewport=PHONE)
    page.locator(".status").wait_for()
    assert page.evaluate(WIDE) == []
    page.screenshot(path=ARTIFACTS / f"explore-{name.replace(' ', '-')}-phone.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_stands_on_light_and_dark(draw, scheme: str):
    page = draw(explore_attention(HEADS, WORDS, title="Six words, eight heads"), color_scheme=scheme)
    chip(page, 4).click()
    inherited = page.evaluate("getComputedStyle(document.body).color")
    assert page.locator(".status").evaluate("e => getComputedStyle(e).color") == inherited
    page.screenshot(path=ARTIFACTS / f"explore-attention-{scheme}.png", full_page=True)


def test_nothing_moves_by_itself(draw):
    page = draw(explore_attention(HEADS, WORDS), reduced_motion="reduce")
    slider(page, "head").fill("2")
    assert page.locator("[data-drawn] > div").evaluate("host => host.shadowRoot.getAnimations().length") == 0


@pytest.mark.parametrize("place", OUTPUTS)
def test_the_still_steps_aside_and_comes_back_on_paper(draw, place: str):
    page = draw(explore_attention(HEADS, WORDS), IMAGE + OUTPUTS[place].replace("STILL", IMAGE))
    other, still = page.get_by_alt_text("still").all()
    expect(page.locator(".status")).to_be_visible()
    assert (other.is_visible(), still.is_visible()) == (True, False)
    page.emulate_media(media="print")
    assert still.is_visible() and not page.locator(".status").is_visible()


def test_without_scripts_there_is_a_table(draw):
    page = draw(explore_attention(HEADS, WORDS), java_script_enabled=False)
    assert page.locator("tr").last.inner_text() == "purred\t" + in_words(HEADS[0, 0, 5]).replace("“", "").replace("”", "")


def test_two_of_a_kind_and_two_kinds_share_a_page(draw):
    attention, mask = explore_attention(HEADS, WORDS), explore_mask(torch.ones(6, 6).bool(), WORDS)
    page = draw(attention, "PICTURE" + mask.html() + attention.html())
    expect(page.locator(".status")).to_have_count(3)
    slider(page, "head").first.fill("3")
    assert [text.split(":")[0] for text in page.locator(".status").all_inner_texts()] == [
        "layer 0, head 3", "“purred” may look at 6 of 6", "layer 0, head 0"]


def kinds(kind: type[Explorable]) -> list[type[Explorable]]:
    "All kinds of pictures."
    return [found for sub in kind.__subclasses__() for found in (sub, *kinds(sub))]


def test_saved_pictures_are_drawn_by_the_present_modules():
    modules = [module for kind in kinds(Explorable) if isinstance(module := vars(kind).get("_esm"), str)]   # no object's own
    for path in ROOT.glob("nbs/**/*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                html = output.get("data", {}).get("text/html", "")
                assert "data-explorable" not in html or any(module in html for module in modules), f"run {path.name} again"
