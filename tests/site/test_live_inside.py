"""The pictures of a model's inside, on a page of their own: what they say is what PyTorch computes."""

import re
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from conftest import ROOT
from geminiq.data.microworld import conversation
from geminiq.data.tokenizer import ChatTokenizer
from geminiq.generation.cache import KVCache
from geminiq.models.attention import record_attention
from geminiq.models.transformer import Transformer
from geminiq.utils.checkpointing import load_course_model
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import make_generator
from geminiq.utils.live_inside import explore_cache, explore_stream
from geminiq.utils.web import _FINE, round_rows
from page_checks import PHONE, WIDE

ARTIFACTS = ROOT / "test-artifacts" / "site"
STORY, OTHER = "Mia took the lamp. Where is the lamp?", "Ben went to the garden. Who is in the garden now?"
EXPLORE = {"stream": explore_stream, "cache": explore_cache}
INHERITED = "e => getComputedStyle(e).color === getComputedStyle(document.body).color"


@pytest.fixture(scope="module")
def small() -> tuple[Transformer, ChatTokenizer]:
    "A random model whose rounded weights are its own, and a tokenizer of the course's stories."
    texts = [message.content for number in range(40) for message in conversation("train", 0, number)]
    tokenizer = ChatTokenizer.train(texts, 330)
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=48,
                                    attention_type="gqa", max_seq_len=140, tie_embeddings=False), make_generator(3))
    for name, weights in model.requires_grad_(False).named_parameters():
        if weights.ndim == 2:
            whole, scales = round_rows(8 * weights, 12 if name in _FINE else 8)
            weights.copy_(whole * scales[:, None])
    return model, tokenizer


def ask(page: Page, text: str) -> None:
    "Type a text, and wait until the page has computed."
    page.locator(".note").evaluate("note => { note.value = '' }")
    page.get_by_role("textbox", name="text").fill(text)
    page.get_by_role("button", name="Read").click()
    expect(page.locator(".note")).to_contain_text("computed by this page")


def same(shown: str, percent: float) -> bool:
    "Whether the page shows this percentage, in its own rounding."
    number = 0.05 if shown == "<0.1%" else float(shown.rstrip("%"))
    return abs(number - percent) <= (0.1001 if number < 10 else 0.5001)


def visible(name: str) -> str:
    "A token as the pictures show it."
    return re.sub("^ | $", "␣", name)


def test_each_layer_says_what_pytorch_computes(draw, small):
    page = draw(explore_stream(*small, STORY))
    ask(page, OTHER)
    found, part = explore_stream(*small, OTHER).found, page.get_by_role("slider", name="part of the text")
    last = len(found["tokens"]) - 12
    for start in (0, last // 2, last):
        part.fill(str(start))
        for layer, row in enumerate(found["cells"]):
            cells = page.locator("tbody tr").nth(layer).locator("button")
            expect(cells).to_have_count(12)
            for cell, shown in zip(row[start:start + 12], cells.all_inner_texts(), strict=True):
                name, percent = shown.rsplit("\n", 1)
                assert name.strip() == visible(cell["likely"][0][0]).strip() and same(percent, cell["likely"][0][1])


def test_a_cell_tells_its_five_likeliest_and_how_the_last_word_grows(draw, small):
    page = draw(explore_stream(*small, STORY))
    ask(page, OTHER)
    found = explore_stream(*small, OTHER).found
    at = len(found["tokens"]) - 1
    page.get_by_role("slider", name="part of the text").fill(str(at - 11))
    for layer, row in enumerate(found["cells"]):
        page.locator(".lens tbody tr").nth(layer).get_by_role("button").last.click()
        likely, growth = (table.locator("tr").all_inner_texts() for table in page.locator(".bars").all())
        for line, (name, percent) in zip(likely, row[at]["likely"], strict=True):
            assert visible(name).strip() in line and same(line.split("\t")[-1].strip(), percent)
        for line, other in zip(growth, found["cells"], strict=True):
            assert same(line.split("\t")[-1].strip(), other[at]["chance"])
        assert growth[layer].startswith("✓")


def test_the_keyboard_reaches_every_cell(draw, small):
    page = draw(explore_stream(*small, STORY))
    field, status = page.get_by_role("textbox", name="text"), page.locator(".status")
    field.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider", name="part of the text")).to_be_focused()
    page.keyboard.press("Tab")
    for key, says in ("Home", "At “<"), ("ArrowUp", "embedding alone says"), ("ArrowUp", "embedding alone says"), \
            ("ArrowDown", "after layer 0 says"), ("ArrowDown", "after layer 1 says"), ("ArrowRight", "At “<|user|>”"), \
            ("End", "after layer 1 says"):
        page.keyboard.press(key)
        expect(status).to_contain_text(says)
    chosen = page.locator(".lens [aria-pressed=true]")
    expect(chosen).to_be_focused()
    assert chosen.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    count = len(explore_stream(*small, STORY).found["tokens"])
    seen = page.locator("label:has-text('part of the text') output")
    for key, start in ("End", count - 11), ("ArrowLeft", count - 11), ("Home", 1), ("ArrowRight", 1):   # moves only if it must
        page.keyboard.press(key)
        expect(seen).to_have_text(f"tokens {start} to {start + 11} of {count}")


@torch.no_grad()
def counted(model: Transformer, tokens: list[int], ends: list[int]) -> list[tuple[int, int]]:
    "Of each step the scores that the heads of PyTorch's model may compute, and the bytes of its cache after it."
    cache, steps = KVCache(model), []
    for start, end in zip([0, *ends], ends, strict=False):
        with record_attention(model) as weights:
            model(torch.tensor([tokens[start:end]]), cache=cache)
        seen = sum(w.shape[1] * int(torch.ones(w.shape[-2:]).tril(w.shape[-1] - w.shape[-2]).sum()) for w in weights)
        steps.append((seen, sum(layer._memory[:, :, :, :end].nbytes for layer in cache.layers)))
    return steps


def test_each_step_computes_and_keeps_what_pytorch_does(draw, small):
    page = draw(explore_cache(*small, STORY))
    ask(page, OTHER[:24])     # of what it shares with the next text, nothing is kept
    ask(page, OTHER)
    found: dict[str, Any] = explore_cache(*small, OTHER).found
    ends = [step["kept"] + step["read"] for step in found["steps"]]
    slider = page.get_by_role("slider", name="step")
    for i, (scores, kept) in list(enumerate(counted(small[0], [5] * ends[-1], ends)))[::max(1, len(ends) // 5)]:
        slider.fill(str(i))
        rows = [row.split("\t")[1:] for row in page.locator(".counts tbody tr").all_inner_texts()]
        assert rows[0] == [str(found["steps"][i]["read"]), str(ends[i])]
        whole = 2 * 4 * ends[i] * (ends[i] + 1) // 2
        assert rows[1] == [f"{scores:,}", f"{whole:,}"] and rows[2] == ["0", f"{whole - scores:,}"]
        assert rows[3][0] == f"{whole:,}"     # all that it took so far is one triangle
        memory = [row.split("\t") for row in page.locator(".memory tbody tr").all_inner_texts()]
        assert [row[0].strip()[:5] for row in memory] == ["MHA, ", "✓ GQA", "MQA, "]
        assert [row[-1] for row in memory] == [f"{2 * kept:,}", f"{kept:,}", f"{kept // 2:,}"]
        expect(page.get_by_text(f"4 bytes = {kept:,} bytes.")).to_be_visible()
        notes = page.locator(".chips small").all_inner_texts()
        before = found["steps"][i]["kept"]
        assert notes[:ends[i] + 1] == ["kept"] * before + ["new"] * (ends[i] - before) + ["next"] * (len(notes) > ends[i])


def test_steps_by_keyboard_and_by_a_click_on_a_row(draw, small):
    page = draw(explore_cache(*small, STORY))
    slider, status = page.get_by_role("slider", name="step"), page.locator(".status")
    steps = explore_cache(*small, STORY).found["steps"]
    slider.press("Home")
    expect(status).to_contain_text(f"All {steps[0]['read']} tokens are read at once")
    slider.press("ArrowRight")
    expect(status).to_contain_text(f"looks at {steps[1]['kept'] + 1} keys")
    slider.press("End")
    expect(status).to_contain_text(f"looks at {steps[-1]['kept'] + 1} keys")
    triangle = page.get_by_role("img", name="With a cache")
    expect(triangle).to_have_attribute("aria-label", re.compile("not computed again"))
    triangle.click(position={"x": 3, "y": 3})
    expect(status).to_contain_text("tokens are read at once")


@pytest.mark.parametrize("kind", EXPLORE)
def test_a_text_too_long_is_refused_in_words(draw, small, kind: str):
    page = draw(EXPLORE[kind](*small, STORY))
    page.get_by_role("textbox", name="text").fill("The lamp is here. " * 60)
    page.keyboard.press("Enter")
    expect(page.locator(".note")).to_contain_text("this model reads at most 139: shorten the text")
    ask(page, OTHER)


@pytest.mark.parametrize("kind", EXPLORE)
def test_without_an_engine_the_first_state_stands(draw, small, kind: str):
    page = draw(EXPLORE[kind](*small, STORY), "<script>globalThis.fetch = async () => ({ ok: false })</script>PICTURE")
    said = page.locator(".status").inner_text()
    page.get_by_role("textbox", name="text").fill(OTHER)
    page.keyboard.press("Enter")
    expect(page.locator(".note")).to_contain_text("run the cell in JupyterLab")
    assert page.locator(".status").inner_text() == said


@pytest.mark.parametrize("kind", EXPLORE)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_stands_on_light_and_dark(draw, small, kind: str, scheme: str):
    explorable = EXPLORE[kind](*small, STORY, title="A small model")
    page = draw(explorable, viewport=PHONE, color_scheme=scheme, reduced_motion="reduce")
    ask(page, OTHER)
    assert page.evaluate(WIDE) == []
    assert page.locator(".status").evaluate(INHERITED)
    assert page.locator("[data-drawn] > div").evaluate("host => host.shadowRoot.getAnimations().length") == 0
    page.screenshot(path=ARTIFACTS / f"inside-{kind}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("kind", EXPLORE)
def test_without_scripts_there_is_a_table_of_the_inside(draw, small, kind: str):
    explorable = EXPLORE[kind](*small, STORY)
    page = draw(explorable, java_script_enabled=False)
    assert page.locator("tr").count() == len(explorable.table)


def test_the_course_model_finds_its_word_on_the_way(draw):
    course = load_course_model()
    page = draw(explore_stream(course.model, course.tokenizer, STORY))
    ask(page, "Tom has the ball. Tom went to the office. Where is the ball?")
    expect(page.locator(".note")).to_contain_text("office")
    rows = [row.inner_text() for row in page.locator(".lens tbody tr").all()]
    surely = re.compile(r"office\n\d\d")
    assert surely.search(rows[-1]) and not surely.search(rows[0])
