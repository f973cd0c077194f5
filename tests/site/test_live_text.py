"""Texts that are typed into a page, in a real browser: cut and drawn from as in Python."""

import gzip
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load

from conftest import ROOT
from geminiq.data.tokenizer import ChatTokenizer, train_tokenizer
from geminiq.generation.cache import next_token_logits
from geminiq.generation.sampling import Sampling
from geminiq.models.transformer import Transformer
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator
from geminiq.utils.live_text import (
    SamplingExplorable,
    TokensExplorable,
    _cut,
    _pieces_after,
    explore_sampling,
    explore_tokens,
)
from geminiq.utils.web import web_file
from page_checks import PHONE, WIDE
from test_chat_explorable import KERNEL

ARTIFACTS = ROOT / "test-artifacts" / "site"
STORY = "Mia took the lamp. She went to the garden, and then there was another. Ben stayed in the kitchen."
TOKENIZER = ChatTokenizer.train([STORY] * 9, 320)
ODD = ["", " ", "the garden", "  two  spaces ", "Zoë ▁▁ 🙂\nthe", "aaaa <|end|> <b>&amp;", "thetherethe " * 9,
       "e\u0301 \u200d 日本"]


@torch.no_grad()
def small_model() -> Transformer:
    "A random model whose weights are as a page has them, so that both compute the same."
    model = Transformer(ModelConfig(vocab_size=320, max_seq_len=120, d_model=32, n_layers=2, n_heads=4), make_generator(1))
    for parameter in model.parameters():
        parameter.mul_(12 if parameter.ndim > 1 else 1)
    tensors = load(gzip.decompress(web_file(model, TOKENIZER)))
    for name, parameter in model.named_parameters():
        whole = tensors[name].float()
        parameter.copy_(whole * tensors[f"{name}.scale"][:, None] if parameter.ndim == 2 else whole)
    return model


MODEL = small_model()


@pytest.fixture
def cutter() -> TokensExplorable:
    return explore_tokens(MODEL, TOKENIZER, "Ben took the lamp.", title="In tokens")


@pytest.fixture
def chooser() -> SamplingExplorable:
    return explore_sampling(MODEL, TOKENIZER, STORY, "She", title="What next?")


def type_in(page: Page, field: str, text: str) -> None:
    page.get_by_role("textbox", name=field).fill(text)


def status(page: Page, text: str) -> None:
    "What is told, once all is computed."
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    expect(page.locator(".status")).to_contain_text(text)


# A text in tokens

def shown(text: str) -> str:
    return text.replace(" ", "␣").replace("\n", "↵")


def labels(text: str, step: int | None = None) -> list[str]:
    "What the picture should say of each piece, by Python."
    cut = _cut(TOKENIZER, text)
    pieces = [piece for word in _pieces_after(cut, len(cut["merges"]) if step is None else step) for piece in word]
    return [f"{shown(piece)}, id {' '.join(map(str, ids))}, bytes {piece.encode().hex(' ')}" for piece, ids in pieces]


def on_page(page: Page) -> list[str]:
    return page.locator(".piece").evaluate_all("pieces => pieces.map(piece => piece.ariaLabel)")


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def test_typed_texts_are_cut_as_in_python(draw, cutter: TokensExplorable):
    page = draw(cutter)
    slider = page.get_by_role("slider", name="merges")
    for text in ODD:
        slider.press("End")
        type_in(page, "Text", text)
        status(page, f"{counted(len(text), 'character')}, {counted(len(text.encode()), 'byte')}, "
                     f"{counted(len(TOKENIZER.encode(text)), 'token')}.")
        assert on_page(page) == labels(text)
        for step in reversed(range(len(_cut(TOKENIZER, text)["merges"]))):
            slider.press("ArrowLeft")
            assert on_page(page) == labels(text, step)
        assert len(on_page(page)) == len(text)      # in the end letters


def test_any_text_is_cut_as_by_the_tokenizer():
    dice, letters = random.Random(0), "aehrt nd▁ë🙂\n"
    for text in (*ODD, *("".join(dice.choices(letters, k=30)) for _ in range(300))):
        cut = _cut(TOKENIZER, text)
        last = [ids for word in _pieces_after(cut, len(cut["merges"])) for _, ids in word]
        assert [i for ids in last for i in ids] == TOKENIZER.encode(text)
        for step in range(len(cut["merges"]) + 1):
            assert "".join(piece for word in _pieces_after(cut, step) for piece, _ in word) == text


def test_the_slider_tells_each_merge(draw, cutter: TokensExplorable):
    page = draw(cutter)
    type_in(page, "Text", "the the other")
    merges = _cut(TOKENIZER, "the the other")["merges"]
    status(page, f"Merge {len(merges)} of {len(merges)}")
    page.get_by_role("slider", name="merges").press("Home")
    status(page, "No merge yet")
    for number, merge in enumerate(merges, 1):
        page.get_by_role("slider", name="merges").press("ArrowRight")
        status(page, f"Merge {number} of {len(merges)}: ")
        status(page, f"→ “{shown(merge['piece'])}”" + (f", at {len(merge['at'])} places" if len(merge["at"]) > 1 else "; of all"))
        status(page, f"learned as number {merge['rank'] + 1}.")
        made = [label.split(", id")[0] for label in page.locator(".fresh").evaluate_all("all => all.map(one => one.ariaLabel)")]
        assert made == [shown(merge["piece"])] * len(merge["at"])
    page.get_by_text("In numbers").click()
    expect(page.locator("details tbody td:nth-child(2)")).to_have_text([str(i) for i in TOKENIZER.encode("the the other")])


def test_whoever_looks_at_letters_goes_on_to_see_letters(draw, cutter: TokensExplorable):
    page = draw(cutter)
    page.get_by_role("slider", name="merges").press("Home")
    type_in(page, "Text", "the garden")
    status(page, "10 characters, 10 bytes, 10 tokens. No merge yet")


def test_too_long_a_text_is_told(draw, cutter: TokensExplorable):
    page = draw(cutter)
    type_in(page, "Text", "a" * 401)
    expect(page.locator(".note")).to_have_text("That is 401 letters, and this picture shows at most 400: shorten the text.")
    type_in(page, "Text", "a" * 400)
    status(page, "400 characters")
    expect(page.locator(".note")).to_be_hidden()


def test_the_kernel_and_the_page_follow_each_other(draw, cutter: TokensExplorable):
    page = draw(cutter)
    page.evaluate(KERNEL, {"text": cutter.text, "step": cutter.step, "key": cutter.key})
    page.evaluate("kernel.set('text', 'there')")
    status(page, "5 characters")
    expect(page.get_by_role("textbox", name="Text")).to_have_value("there")
    type_in(page, "Text", "garden")
    status(page, "6 characters")
    assert page.evaluate("kernel.get('text')") == "garden"


# What may come next

@torch.no_grad()
def expected(text: str, answer: str, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    "The probabilities before and after the cuts, by Python."
    ids = [*TOKENIZER.apply_chat_template([{"role": "user", "content": text}]), *TOKENIZER.encode(answer)]
    logits = next_token_logits(MODEL, torch.tensor([ids]))
    return logits[0].softmax(-1), sampling.change(logits)[0].softmax(-1)


def percent(text: str) -> float:
    return 0.0 if text in ("cut", "<0.1%") else float(text.removesuffix("%"))


def rows(page: Page) -> list[list[str]]:
    "The table, without the bars."
    return page.locator(".chances tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].toSpliced(1, 1).map(cell => cell.textContent))")


def agree(page: Page, before: torch.Tensor, after: torch.Tensor) -> None:
    "Wait for as many tokens as are kept, and compare all numbers."
    had = f"{100 * float(before[after > 0].sum()):.1f}%"
    status(page, f"{int((after > 0).sum())} of 320 tokens may come next; the model gave them {had}")
    order, table = before.sort(descending=True, stable=True).indices, rows(page)
    assert len(table) == 13 and table[-1][0] == "308 others"
    groups: list[Any] = [*order[:12, None], order[12:]]
    for (_, was, now, _), ids in zip(table, groups, strict=True):
        assert percent(was) == pytest.approx(100 * float(before[ids].sum()), abs=0.051)
        assert percent(now) == pytest.approx(100 * float(after[ids].sum()), abs=0.051)
        assert (now == "cut") == (not after[ids].any())


KNOBS = [(Sampling(), []), (Sampling(2.0), [("temperature", "End")]), (Sampling(top_k=1), [("top-k", "Home")]),
         (Sampling(top_k=2), [("top-k", "Home"), ("top-k", "ArrowRight")]), (Sampling(top_p=0.05), [("top-p", "Home")]),
         (Sampling(2.0, top_p=0.95), [("temperature", "End"), ("top-p", "ArrowLeft")]), (Sampling(min_p=0.5), [("min-p", "End")]),
         (Sampling(2.0, 39, 0.95, 0.02), [("temperature", "End"), ("top-k", "ArrowLeft"), ("top-k", "ArrowLeft"),
                                          ("top-p", "ArrowLeft"), ("min-p", "ArrowRight"), ("min-p", "ArrowRight")])]


def test_the_first_numbers_and_those_of_a_typed_text_are_pytorchs(draw, chooser: SamplingExplorable):
    page = draw(chooser)
    agree(page, *expected(STORY, "She", Sampling()))
    for text, answer in ("Where is the lamp?", "In the"), ("", ""), ("<b>🙂", " "):
        type_in(page, "The user says", text)
        type_in(page, "The answer begins", answer)
        read = len(TOKENIZER.apply_chat_template([{"role": "user", "content": text}])) + len(TOKENIZER.encode(answer))
        status(page, f"It read {read} tokens")
        agree(page, *expected(text, answer, Sampling()))


def test_the_knobs_cut_as_sampling_does(draw, chooser: SamplingExplorable):
    for sampling, keys in KNOBS:
        page = draw(chooser)
        for name, key in keys:
            page.get_by_role("slider", name=name).press(key)
        agree(page, *expected(STORY, "She", sampling))
        page.close()


def test_the_first_setting_is_on_the_knobs_and_in_the_table(draw):
    sampling = Sampling(1.5, top_k=50, top_p=0.9, min_p=0.01)
    page = draw(explore_sampling(MODEL, TOKENIZER, STORY, "She", sampling))
    agree(page, *expected(STORY, "She", sampling))
    assert page.locator("label output").all_inner_texts() == ["1.5", "50", "0.90", "0.01"]
    page.get_by_role("slider", name="temperature").press("Home")
    status(page, "1 of 320 tokens may come next")
    assert rows(page)[0][2] == "100.0%"


def mulberry(seed: int) -> Iterator[float]:
    "The page's random numbers."
    while True:
        seed = (seed + 0x6D2B79F5) % 2**32
        t = (seed ^ seed >> 15) * (1 | seed) % 2**32
        t = (t + (t ^ t >> 7) * (61 | t) % 2**32) % 2**32 ^ t
        yield (t ^ t >> 14) / 2**32


def test_a_hundred_draws_are_those_of_the_probabilities(draw, chooser: SamplingExplorable):
    page = draw(chooser)
    assert {row[3] for row in rows(page)} == {"–"}
    page.get_by_role("slider", name="top-k").press("Home")
    for _ in range(4):
        page.get_by_role("slider", name="top-k").press("ArrowRight")
    status(page, "5 of 320 tokens")
    before, after = expected(STORY, "She", Sampling(top_k=5))
    order, ends = before.sort(descending=True, stable=True).indices, after.double().cumsum(-1)
    for seed, button in enumerate(["Draw 100 times", "Draw 100 others"], 1):
        page.get_by_role("button", name=button).click()
        dice = mulberry(seed)
        drawn = torch.tensor([int((ends <= next(dice)).sum()) for _ in range(100)]).bincount(minlength=320)
        expect(page.locator(".chances tbody td.draws").first).to_have_text(str(int(drawn[order[0]])))
        assert [int(row[3]) for row in rows(page)] == [*drawn[order[:12]].tolist(), 0]


def test_a_text_without_a_chat(draw):
    tokenizer = train_tokenizer([STORY] * 9, 320)
    page = draw(explore_sampling(MODEL, tokenizer, "Mia"))
    expect(page.get_by_role("textbox")).to_have_count(1)
    type_in(page, "Text", "Mia took")
    status(page, f"It read {1 + len(tokenizer.encode('Mia took'))} tokens")
    with torch.no_grad():
        logits = next_token_logits(MODEL, torch.tensor([[*tokenizer.start_ids, *tokenizer.encode("Mia took")]]))[0]
    agree(page, logits.softmax(-1), logits.softmax(-1))
    with pytest.raises(UserError, match="put it into the text"):
        explore_sampling(MODEL, tokenizer, "Mia", "took")


def test_more_than_the_model_reads_is_told(draw, chooser: SamplingExplorable):
    page, before = draw(chooser), None
    before = rows(page)
    type_in(page, "The user says", STORY * 9)
    expect(page.locator(".note")).to_contain_text("this model reads at most 119: shorten the text")
    assert rows(page) == before
    with pytest.raises(UserError, match="reads at most 119"):
        explore_sampling(MODEL, TOKENIZER, STORY * 9)


# Both

@pytest.mark.parametrize("kind", ["cutter", "chooser"])
def test_the_keyboard_reaches_everything(draw, request, kind: str):
    page, reached = draw(request.getfixturevalue(kind)), []
    kinds = ["textarea", "range", "summary"] if kind == "cutter" else ["textarea", "textarea", *["range"] * 4, "button"]
    for _ in kinds:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("""() => {
            let at = document.activeElement;
            while (at.shadowRoot) at = at.shadowRoot.activeElement;
            return [at.type ?? at.localName, getComputedStyle(at).outlineStyle] }"""))
    assert [name for name, _ in reached] == kinds
    assert all(outline != "none" for _, outline in reached)


CONTRAST = """() => {   // texts that stand out too little from what is behind them
  const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true });

  function brightness(colors) {   // of colors painted one over the other
    for (const color of colors) {
      pixel.fillStyle = color;
      pixel.fillRect(0, 0, 1, 1);
    }
    const linear = c => c <= 10 ? c / 255 / 12.92 : ((c / 255 + .055) / 1.055) ** 2.4;
    const [r, g, b] = [...pixel.getImageData(0, 0, 1, 1).data].map(linear);
    return .2126 * r + .7152 * g + .0722 * b;
  }

  function contrast(element) {
    const behind = [];
    let opacity = 1;
    for (let at = element; at; at = at.parentElement ?? at.getRootNode().host) {
      behind.unshift(getComputedStyle(at).backgroundColor);
      opacity *= getComputedStyle(at).opacity;
    }
    behind.unshift(matchMedia('(prefers-color-scheme: dark)').matches ? 'black' : 'white');
    const [r, g, b] = getComputedStyle(element).color.match(/[\\d.]+/g);
    const [low, high] = [brightness(behind), brightness([...behind, `rgb(${r} ${g} ${b} / ${opacity})`])].sort((a, b) => a - b);
    return (high + .05) / (low + .05);
  }

  const all = [...document.querySelector('[data-explorable] > div').shadowRoot.querySelectorAll(':not(style)')];
  const texts = all.filter(e => e.checkVisibility() && [...e.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return [texts.length, texts.filter(e => contrast(e) < 4.5).map(e => e.textContent)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["cutter", "chooser"])
def test_it_can_be_read_on_light_and_dark(draw, request, kind: str, scheme: str):
    page = draw(request.getfixturevalue(kind), color_scheme=scheme)
    if kind == "chooser":
        page.get_by_role("button").click()
        page.get_by_role("slider", name="top-k").press("Home")
        expect(page.locator(".cut").first).to_be_visible()
    n_texts, faint = page.evaluate(CONTRAST)
    assert n_texts > 15 and faint == []
    page.screenshot(path=ARTIFACTS / f"live-{kind}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("kind", ["cutter", "chooser"])
def test_it_fits_a_phone(draw, request, kind: str):
    page = draw(request.getfixturevalue(kind), viewport=PHONE)
    page.get_by_role("textbox").last.fill(f"{'🙂' * 30} {'x' * 90} there")
    status(page, "127" if kind == "cutter" else "It read")
    if kind == "cutter":
        page.get_by_text("In numbers").click()
    assert page.evaluate(WIDE) == []
    page.screenshot(path=ARTIFACTS / f"live-{kind}-phone.png", full_page=True)


@pytest.mark.parametrize("kind", ["cutter", "chooser"])
def test_without_scripts_there_is_a_table(draw, request, kind: str):
    explorable = request.getfixturevalue(kind)
    page = draw(explorable, java_script_enabled=False)
    assert page.locator("tr").all_inner_texts() == ["\t".join(row) for row in explorable.table]
    assert explorable.title in explorable.still.alt
