"""Shannon's guessing game on a page of its own: what is typed, told and tapped, and the bits that Python counts."""

import re

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from conftest import ROOT
from geminiq.data.tokenizer import BPETokenizer
from geminiq.models.transformer import Transformer
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import make_generator
from geminiq.utils.live_guessing import GuessingExplorable, explore_guessing
from page_checks import PHONE, WIDE
from test_chat_explorable import KERNEL

ARTIFACTS = ROOT / "test-artifacts" / "site"
STORY = "Mia took the lamp. She went to the garden, and then there was another. Ben's cat stayed in the kitchen."
TOKENIZER = BPETokenizer.train([STORY] * 9, 310)
TEXTS = [("Mia took the ", "Lamp."), ("Where? ", "In Ben's\nhat")]
SIZE = 31   # 26 letters, the space, the end of a line, ? . '


@pytest.fixture(scope="module")
def made() -> GuessingExplorable:
    model = Transformer(ModelConfig(vocab_size=310, max_seq_len=60, d_model=32, n_layers=1, n_heads=4), make_generator(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return explore_guessing(model, TOKENIZER, TEXTS, title="Guess the text")


@pytest.fixture
def game(made: GuessingExplorable) -> GuessingExplorable:
    "At its beginning."
    made.text, made.guesses, made.tried = 0, [[], []], ""
    return made


def field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="your guess")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def key(page: Page, name: str) -> Locator:
    return page.get_by_role("group", name="letters to tap").get_by_role("button", name=name, exact=True)


def status(page: Page, text: str) -> None:
    expect(page.locator(".status")).to_contain_text(text)


def so_far(page: Page, text: str) -> None:
    expect(page.locator(".board")).to_have_attribute("aria-label", re.compile(re.escape(text)))


def numbers(page: Page, kind: str = "small:not(.model)") -> list[str]:
    "The figures below the letters: the reader's, or the model's."
    return page.locator(f".board .open {kind}").all_inner_texts()


def agrees(page: Page, game: GuessingExplorable, guesses: list[list[int]]) -> None:
    "The bits on the page are those of Python."
    game.guesses = guesses
    scores = game.scores()
    shown = [f"{scores[name]:.2f}" if name in scores else "–" for name in ("reader", "model, by guesses", "model")]
    assert page.locator(".score output").all_inner_texts() == shown


def test_a_text_is_guessed_on_the_keyboard(draw, game: GuessingExplorable):
    page = draw(game)
    status(page, "5 letters to guess. Which one comes first?")
    agrees(page, game, [[], []])
    page.keyboard.press("Tab")
    expect(field(page)).to_be_focused()
    page.keyboard.type("M")
    status(page, "Not “m”.")
    expect(key(page, "“m”")).to_have_css("text-decoration-line", "line-through")
    page.keyboard.type("m")
    status(page, "You have tried “m” already.")
    page.keyboard.type("#")
    status(page, f"Only the {SIZE} letters below can come; “#” is none of them.")
    page.keyboard.type("l")
    first = game.texts[0]
    status(page, f"Letter 1, “L”. Right, at the 2nd guess. The model: {first['ranks'][0]} guess")
    status(page, f"{first['bits'][0]:.1f} bits.")
    expect(key(page, "“m”")).to_have_css("text-decoration-line", "none")
    so_far(page, "so far: L; 4 letters to guess")
    agrees(page, game, [[2], []])
    page.keyboard.type("bcamp")
    agrees(page, game, [[2, 3, 1, 1], []])
    expect(page.locator(".verdict")).to_be_empty()
    page.keyboard.type(" .")
    agrees(page, game, [[2, 3, 1, 1, 2], []])
    assert numbers(page) == ["2", "3", "1", "1", "2"] and numbers(page, ".model") == [str(rank) for rank in first["ranks"]]
    told = page.locator(".verdict").inner_text()
    scores = game.scores()
    assert told.startswith(f"Over 5 letters you needed {scores['reader']:.2f} bits each by your guesses, "
                           f"the model {scores['model, by guesses']:.2f} by its own: ")
    page.keyboard.type("x")
    so_far(page, "so far: Lamp.; 0 letters")
    assert numbers(page) == ["2", "3", "1", "1", "2"]


def test_arrows_look_back_at_the_letters(draw, game: GuessingExplorable):
    game.guesses = [[1, 2, 31, 0], []]
    page = draw(game)
    field(page).click()
    for pressed, said in ("ArrowLeft", "Letter 3, “m”. You: 31 guesses."), ("Home", "Letter 1, “L”. You: 1 guess."), \
            ("ArrowLeft", "Letter 1,"), ("ArrowRight", "Letter 2, “a”. You: 2 guesses."), ("End", "Letter 4, “p”. Given away."):
        page.keyboard.press(pressed)
        status(page, said)
    page.locator(".board .open").nth(1).click()
    status(page, "Letter 2, “a”.")
    order = game.texts[0]["orders"][1].replace(" ", "␣").replace("\n", "↵")
    assert f"in the order {' '.join(order)}" in page.locator(".status").inner_text()
    page.keyboard.type("q")
    status(page, "Not “q”.")
    page.get_by_text("The letters in numbers").click()
    rows = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    assert [row[:3] for row in rows] == [[letter, own, str(rank)] for letter, own, rank in
                                        zip("Lamp", ["1", "2", "31", "given away"], game.texts[0]["ranks"][:4], strict=True)]
    assert [float(row[4]) for row in rows] == pytest.approx(game.texts[0]["bits"][:4], abs=0.0051)


def test_to_be_told_counts_as_the_last_guess_and_what_is_given_away_counts_for_nobody(draw, game: GuessingExplorable):
    page = draw(game)
    button(page, "Tell me").click()
    status(page, "Letter 1, “L”. Told, which counts as the 31st guess.")
    page.keyboard.type("a")          # on the button: the guess goes on
    status(page, "Letter 2, “a”. Right, at the 1st guess.")
    expect(field(page)).to_be_focused()
    agrees(page, game, [[SIZE, 1], []])
    button(page, "Give the rest away").click()
    status(page, "Letter 5, “.”. Given away.")
    assert numbers(page) == ["31", "1", "·", "·", "·"]
    agrees(page, game, [[SIZE, 1, 0, 0, 0], []])
    expect(page.locator(".score h4")).to_have_text("Bits a letter, over 2 letters")
    for name in "Tell me", "Give the rest away":
        expect(button(page, name)).to_have_attribute("aria-disabled", "true")
        button(page, name).click(force=True)
    assert len(numbers(page)) == 5


def test_who_gives_all_away_sees_what_the_model_needed(draw, game: GuessingExplorable):
    page = draw(game)
    button(page, "Give the rest away").click()
    expect(page.locator(".verdict")).to_contain_text("All was given away. By its guesses the model needed ")
    agrees(page, game, [[0] * 5, []])


def test_another_text_goes_on_and_begins_again(draw, game: GuessingExplorable):
    page = draw(game)
    page.locator(".board").click()
    page.keyboard.type("lamp")
    button(page, "Another text").click()
    expect(page.locator(".given")).to_have_text("“Where? …”")
    expect(field(page)).to_be_focused()
    page.keyboard.type("in")
    page.keyboard.press("Space")
    page.keyboard.type("ben")
    page.keyboard.insert_text("’")
    page.keyboard.type("s")
    page.keyboard.press("Enter")
    so_far(page, "so far: In Ben's\n; 3 letters")
    agrees(page, game, [[1] * 4, [1] * 9])
    key(page, "“a”").click()
    key(page, "“h”").click()
    button(page, "Another text").click()
    so_far(page, "so far: Lamp; 1 letter to guess")
    field(page).click()
    page.keyboard.type(".")
    button(page, "Another text").click()
    so_far(page, "2 letters to guess")
    page.keyboard.type("at")
    button(page, "Another text").click()      # that one was over: it begins again
    so_far(page, "so far: nothing; 5 letters")
    agrees(page, game, [[], [1] * 9 + [2, 1, 1]])


def test_the_space_and_the_end_of_a_line_are_keys(draw, game: GuessingExplorable):
    game.text, game.guesses = 1, [[], [1, 1]]
    page = draw(game, has_touch=True, viewport=PHONE)
    key(page, "the end of a line").tap()
    status(page, "Not the end of a line.")
    key(page, "the space").tap()
    status(page, "Letter 3, the space. Right, at the 2nd guess.")
    assert page.evaluate("document.activeElement.shadowRoot?.activeElement?.tagName") != "INPUT"
    field(page).tap()
    expect(field(page)).to_be_focused()
    page.keyboard.insert_text("Ben")          # as keyboards of phones do
    so_far(page, "so far: In Ben; 6 letters")
    assert page.evaluate(WIDE) == []


def test_shortcuts_of_jupyterlab_stay_outside(draw, game: GuessingExplorable):
    page = draw(game)
    assert field(page).evaluate("e => e.getRootNode().host.dataset.lmSuppressShortcuts") == "true"


def test_the_kernel_and_the_page_follow_each_other(draw, game: GuessingExplorable):
    page = draw(game)
    page.evaluate(KERNEL, {"text": 0, "guesses": [[1], []], "tried": "x", "key": game.key})
    so_far(page, "so far: L; 4 letters")
    expect(key(page, "“x”")).to_have_css("text-decoration-line", "line-through")
    field(page).click()
    page.keyboard.type("ba")
    status(page, "Right, at the 3rd guess.")
    assert page.evaluate("[kernel.get('guesses'), kernel.get('tried')]") == [[[1, 3], []], ""]
    page.evaluate("kernel.set('guesses', [[4, 4, 4], []])")
    status(page, "Letter 3, “m”. You: 4 guesses.")
    page.evaluate("kernel.set('text', 1)")
    so_far(page, "so far: nothing; 12 letters")


def test_what_python_has_chosen_is_where_the_page_begins(draw, game: GuessingExplorable):
    game.text, game.guesses, game.tried = 1, [[1, 1], [2]], "q"
    page = draw(game)
    so_far(page, "so far: I; 11 letters")
    agrees(page, game, [[1, 1], [2]])
    status(page, "Letter 1, “I”. You: 2 guesses.")


def test_what_is_read_aloud_does_not_tell_the_text(draw, game: GuessingExplorable):
    page = draw(game)
    assert "Lamp" not in page.inner_text("body") and "hat" not in game.alt and "Where?" in game.alt
    assert "Lamp" not in page.locator("[role=group]").first.get_attribute("aria-label")


def test_it_fits_a_phone(draw, game: GuessingExplorable):
    game.guesses = [[1, 29], []]
    page = draw(game, viewport=PHONE)
    height = page.locator(".board").bounding_box()["height"]
    field(page).click()
    page.keyboard.type("mp")
    assert page.locator(".board").bounding_box()["height"] == height     # what is below stays where it is
    assert page.evaluate(WIDE) == []
    page.screenshot(path=ARTIFACTS / "explore-guessing-phone.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_stands_on_light_and_dark(draw, game: GuessingExplorable, scheme: str):
    game.guesses = [[1, 2, 1], []]
    page = draw(game, color_scheme=scheme)
    inherited = page.evaluate("getComputedStyle(document.body).color")
    assert page.locator(".status").evaluate("e => getComputedStyle(e).color") == inherited
    page.screenshot(path=ARTIFACTS / f"explore-guessing-{scheme}.png", full_page=True)


def test_without_scripts_there_is_a_table(draw, game: GuessingExplorable):
    page = draw(game, java_script_enabled=False)
    assert page.locator("tr").all_inner_texts() == ["\t".join(row) for row in game.table]
    assert [row[0] for row in game.table[1:]] == list("In␣Ben's↵hat")
