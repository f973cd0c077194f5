"""Answers only if sure, on a page of its own: the limit that is moved, what it leaves, and the numbers that Python counts."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from conftest import ROOT
from geminiq.data.microworld import Message, Question
from geminiq.generation.evaluation import Prompt, Result
from geminiq.utils.live_confidence import LIMITS, ConfidenceExplorable, explore_confidence
from page_checks import PHONE, WIDE
from test_chat_explorable import KERNEL

ARTIFACTS = ROOT / "test-artifacts" / "site"
TITLE = "It answers only if it is at least so sure"
WRONG = {1, 4, 5, 8, 9, 13, 21, 34, 80}


def answer(number: int, right: bool) -> Result:
    "An answer to a question of its own."
    question = Question("where_thing", f"Where is lamp {number}?", f"Lamp {number} is in the hall.")
    said = f"Lamp {number} is in the hall." if right else f"Lamp {number} is in the attic."
    return Result(Prompt(number, [Message("user", question.text, question)], question, 1, [1, 2]), said)


@pytest.fixture(scope="module")
def made() -> ConfidenceExplorable:
    "120 answers from 30% to five nines, the later the surer; given in another order."
    n = 120
    sure = [1 - 0.7 * 10 ** (-5.2 * i / n) for i in range(n)]
    order = [7 * i % n for i in range(n)]
    return explore_confidence([answer(i, i not in WRONG) for i in order], [sure[i] for i in order], title=TITLE)


@pytest.fixture
def explorable(made: ConfidenceExplorable) -> ConfidenceExplorable:
    "At its beginning."
    made.limit = 0
    return made


def limit(page: Page) -> Locator:
    return page.get_by_role("slider", name="answers only if at least so sure")


def heap(page: Page) -> Locator:
    return page.get_by_role("slider", name="an answer, the least sure first")


def spot(page: Page, place: int) -> tuple[float, float]:
    "Where an answer stands on the page."
    box = page.locator(".heap .dot, .heap .cross").nth(place).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def status(page: Page, text: str) -> None:
    expect(page.locator(".status")).to_contain_text(text)


def agrees(page: Page, explorable: ConfidenceExplorable, limit: float) -> None:
    "What the page says, and what is faded, is what Python counts."
    explorable.limit = limit
    row, whole = explorable.counts(), explorable.counts(0)
    shown = page.locator(".status").inner_text()
    assert re.search(r"answers (?:all )?(\d+|none)", shown)[1] == str(row["answered"] or "none")
    if row["answered"]:
        mistakes = re.search(r"(\d+) mistake", shown)
        assert int(mistakes[1] if mistakes else 0) == row["mistakes"]
        right = re.search(r"and (all|[\d.]+%) of its answers are right", shown)[1]
        assert right == "all" if not row["mistakes"] else float(right[:-1]) == round(100 * row["right"] / row["answered"], 1)
    silent, missed = row["of"] - row["answered"], whole["right"] - row["right"]
    if silent > 1:
        said = "all" if missed == silent else missed or "none"
        assert f"Of the {silent} it leaves unanswered, {said} would have been right." in shown
    assert page.locator(".heap .silent").count() == silent
    assert page.locator(".heap .cross.silent").count() == len(WRONG) - row["mistakes"]


def test_it_begins_without_a_limit(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    status(page, "Without a limit it answers all 120 questions, and 92.5% of its answers are right: 9 mistakes.")
    agrees(page, explorable, 0)
    expect(page.locator(".legend")).to_have_text("111 right answers9 wrong answers")
    expect(page.locator(".examples h4")).to_have_text("Mistakes that remain: the next 3 of 9")
    asked = [text.split("?")[0] for text in page.locator(".examples li").all_inner_texts()]
    assert asked == ["Where is lamp 1", "Where is lamp 4", "Where is lamp 5"]


def test_the_limit_moves_by_keyboard_in_round_numbers(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    page.keyboard.press("Tab")
    expect(heap(page)).to_be_focused()
    page.keyboard.press("Tab")
    expect(limit(page)).to_be_focused()
    for name in "20%", "37%", "50%", "60%", "68%", "75%", "80%", "84%", "87.5%", "90%", "92%":
        page.keyboard.press("ArrowRight")
        expect(limit(page)).to_have_attribute("aria-valuetext", f"at least {name} sure")
        status(page, f"At least {name} sure: it answers ")
        agrees(page, explorable, float(name[:-1]) / 100)
    for pressed, value in ("PageUp", 0.99), ("PageUp", 0.999), ("ArrowRight", 0.9992), ("PageDown", 0.999), ("PageDown", 0.99), \
            ("End", 0.999999), ("Home", 0), ("PageDown", 0):
        page.keyboard.press(pressed)
        expect(limit(page)).to_have_attribute("aria-valuetext", f"at least {100 * value:.6g}% sure")
        agrees(page, explorable, value)


def test_the_mistakes_that_remain_are_told_the_nearest_first(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    for stop, heading, numbers in (6, "Mistakes that remain: the next 3 of 4", (13, 21, 34)), \
            (10, "The 3 mistakes that remain", (21, 34, 80)), (28, "The mistake that remains", (80,)), \
            (45, "No mistake remains", ()), (60, "It answers nothing", ()):
        limit(page).fill(str(stop))
        expect(page.locator(".examples h4")).to_have_text(heading)
        told = page.locator(".examples li").all_inner_texts()
        assert [int(re.search(r"lamp (\d+)", text)[1]) for text in told] == list(numbers)
        assert all("attic" in text.split("True is")[0] and "hall" in text.split("True is")[1] for text in told)
    status(page, "answers none of 120 questions. Of the 120 it leaves unanswered, 111 would have been right.")


def stops() -> list[float]:
    "Where the limit can be put on the page."
    doubts = (100, 80, 63, 50, 40, 32, 25, 20, 16, 12.5)
    return [round(1 - doubts[i % 10] / 10 ** (2 + i // 10), 9) for i in range(61)]


def test_a_click_and_a_drag_in_the_picture_move_the_limit(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    box, y = heap(page).bounding_box(), spot(page, 100)[1] - 40
    scale = page.locator(".heap .scale")
    ninety, two_nines, three = (scale.nth(i).bounding_box()["x"] for i in (1, 2, 3))
    page.mouse.click(ninety + 1, y)
    status(page, "At least 90% sure:")
    page.mouse.move(two_nines, y)
    page.mouse.down()
    page.mouse.move(two_nines + 30, y)
    page.mouse.move(three - 1, y)
    status(page, "At least 99.9% sure:")
    page.mouse.move(box["x"] - 60, y)        # beyond the picture
    page.mouse.up()
    status(page, "Without a limit")
    page.mouse.move(two_nines, y)            # nothing is held any more
    status(page, "Without a limit")
    agrees(page, explorable, 0)


def test_an_answer_is_picked_by_pointer_and_by_keyboard(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    heading, item = page.locator(".examples h4"), page.locator(".examples li")
    page.mouse.click(*spot(page, 34))
    expect(heading).to_have_text("You picked an answer that is given")
    expect(item).to_contain_text("Where is lamp 34?")
    expect(item).to_contain_text("It says: Lamp 34 is in the attic.")
    expect(item).to_contain_text("True is: Lamp 34 is in the hall.")
    status(page, "Without a limit")          # the limit stays
    page.mouse.click(*spot(page, 34))
    expect(heading).to_have_text("Mistakes that remain: the next 3 of 9")
    limit(page).fill("10")
    heap(page).press("ArrowRight")
    expect(heading).to_have_text("You picked an answer that is left out")
    expect(item).to_contain_text("It says: Lamp 0 is in the hall. That is right.")
    expect(heap(page)).to_have_attribute("aria-valuetext", "right, 30% sure: Where is lamp 0? Lamp 0 is in the hall.")
    heap(page).press("ArrowRight")
    expect(heap(page)).to_have_attribute("aria-valuetext", re.compile("^wrong, 37% sure: Where is lamp 1"))
    heap(page).press("End")
    expect(heap(page)).to_have_attribute("aria-valuetext", re.compile("lamp 80"))
    expect(heap(page)).to_have_attribute("aria-valuenow", heap(page).get_attribute("aria-valuemax"))
    limit(page).press("ArrowRight")          # the limit goes on: back to the mistakes
    expect(heading).to_contain_text("remain")
    heap(page).press("Home")
    heap(page).press("Escape")
    expect(heading).to_contain_text("remain")
    expect(heap(page)).to_have_attribute("aria-valuetext", "none is picked")


def test_the_curve_follows_the_limit(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    curve = page.get_by_role("img", name="share right of those answered")
    said = []
    for stop in (0, 10, 30, 60):
        limit(page).fill(str(stop))
        said.append(curve.get_attribute("aria-label").partition(": ")[2])
    row = explorable.counts(0.9)
    assert said[0] == "92.5% right of 100% answered; silent at random it would stay at 92.5%"
    assert said[1].startswith(f"{100 * row['right'] / row['answered']:.3g}% right of {100 * row['answered'] / 120:.0f}%")
    assert said[3].startswith("nothing is answered")
    expect(page.locator(".mark")).to_be_hidden()


def test_the_numbers_can_be_read_in_a_table(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    page.get_by_text("The limits in numbers").click()
    rows = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["0%", "50%", "90%", "99%", "99.9%"]
    assert [[int(number) for number in row[1:4]] for row in rows] == [
        [explorable.counts(limit)[name] for name in ("answered", "right", "mistakes")] for limit in LIMITS]


def test_the_kernel_and_the_page_follow_each_other(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    page.evaluate(KERNEL, {"limit": 0.5, "key": explorable.key})
    status(page, "At least 50% sure:")
    agrees(page, explorable, 0.5)
    limit(page).press("ArrowRight")
    assert page.evaluate("kernel.get('limit')") == 0.6
    page.evaluate("kernel.set('limit', 0.93)")          # between two steps of the slider
    status(page, "At least 93% sure:")
    agrees(page, explorable, 0.93)
    limit(page).press("ArrowRight")
    assert page.evaluate("kernel.get('limit')") in stops()
    page.evaluate("kernel.set('limit', 1)")
    status(page, "At least 100% sure: it answers none")


def test_what_python_has_chosen_is_where_the_page_begins(draw, explorable: ConfidenceExplorable):
    explorable.limit = 0.875
    page = draw(explorable)
    status(page, "At least 87.5% sure:")
    expect(limit(page)).to_have_value("9")


@pytest.mark.parametrize(("sure", "wrong", "said"), [
    ([0.4, 0.6, 0.85, 0.95, 0.998], {0, 2}, "all 5 questions, and 60% of its answers are right: 2 mistakes."),
    ([1.0], set(), "the only question, and all of its answers are right."),
    ([0.0, 0.0], {0, 1}, "all 2 questions, and 0% of its answers are right: 2 mistakes.")])
def test_few_answers_do_too(draw, sure: list[float], wrong: set[int], said: str):
    few = explore_confidence([answer(i, i not in wrong) for i in range(len(sure))], sure)
    page = draw(few)
    status(page, f"Without a limit it answers {said}")
    limit(page).press("End")
    status(page, "At least 99")
    assert page.locator(".heap .dot, .heap .cross").count() == len(sure)
    heap(page).press("Home")
    expect(page.locator(".examples li")).to_have_count(1)


def test_a_model_that_is_mostly_wrong_fits_too(draw):
    many = explore_confidence([answer(i, i % 3 == 0) for i in range(600)], [0.3 + 0.0008 * i for i in range(600)])
    page = draw(many)
    assert heap(page).bounding_box()["height"] < 520
    box = heap(page).bounding_box()
    lowest = max(spot(page, place)[1] for place in range(600))
    assert lowest < box["y"] + box["height"]


def test_what_is_far_too_sure_and_equal_answers_are_counted_alike(draw):
    alike = explore_confidence([answer(i, i > 1) for i in range(6)], [0.9, 0.5, 0.9, 0.5, 1 - 1e-12, 0.99999])
    page = draw(alike)
    for at in 0.5, 0.9, 0.99999, 0.999999:
        page.evaluate(KERNEL, {"limit": at, "key": alike.key})
        row = alike.counts(at)
        status(page, f"it answers all {row['of']}" if row["answered"] == 6 else f"it answers {row['answered']} of 6 questions")
    assert alike.counts(1)["answered"] == 0 and alike.counts(0.9)["answered"] == 4


def test_shortcuts_of_jupyterlab_stay_outside(draw, explorable: ConfidenceExplorable):
    page = draw(explorable)
    assert limit(page).evaluate("e => e.getRootNode().host.dataset.lmSuppressShortcuts") == "true"


def test_it_fits_a_phone_and_a_finger(draw, explorable: ConfidenceExplorable):
    page = draw(explorable, viewport=PHONE, has_touch=True)
    assert page.evaluate(WIDE) == []
    page.touchscreen.tap(*spot(page, 21))
    expect(page.locator(".examples li")).to_contain_text("Where is lamp 21?")
    box = heap(page).bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 30)
    status(page, "At least 99")
    assert page.evaluate(WIDE) == []
    page.set_viewport_size({"width": 700, "height": 844})        # turned
    expect(page.locator(".heap svg")).to_have_attribute("width", re.compile("6[0-9]{2}"))
    status(page, "At least 99")
    page.set_viewport_size(PHONE)
    page.screenshot(path=ARTIFACTS / "explore-confidence-phone.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_stands_on_light_and_dark(draw, explorable: ConfidenceExplorable, scheme: str):
    explorable.limit = 0.75
    page = draw(explorable, color_scheme=scheme)
    inherited = page.evaluate("getComputedStyle(document.body).color")
    assert page.locator(".status").evaluate("e => getComputedStyle(e).color") == inherited
    limit(page).focus()
    assert limit(page).evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.screenshot(path=ARTIFACTS / f"explore-confidence-{scheme}.png", full_page=True)


def test_without_scripts_there_is_a_table(draw, explorable: ConfidenceExplorable):
    page = draw(explorable, java_script_enabled=False)
    assert page.locator("tr").all_inner_texts() == ["\t".join(row) for row in explorable.table]
    assert [row[0] for row in explorable.table[1:]] == ["0%", "50%", "90%", "99%", "99.9%"]


def test_the_picture_is_small_and_its_name_is_that_of_its_content(made: ConfidenceExplorable):
    results, sure = [answer(i, i not in WRONG) for i in range(900)], [1 - 0.7 * 10 ** (-i / 200) for i in range(900)]
    again = [explore_confidence(results, sure, title=TITLE) for _ in range(2)]
    assert again[0].key == again[1].key != made.key and len(again[0].html()) < 60_000
    assert again[0].still.png() == again[1].still.png() and "900 answers of a model" in again[0].alt
    assert "with a limit of 0% it answers 120, 9 of them wrong; " in made.alt
