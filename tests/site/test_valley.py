"""The race down a valley on a page of its own: it walks as Python does, from wherever the ball is put."""

import re
from itertools import product

import pytest
from playwright.sync_api import Locator, Page, expect

from conftest import ROOT
from geminiq.utils.live_valley import LANDSCAPES, RATES, WAYS, ValleyExplorable, _height, best_rate, explore_valley, heights, walk
from page_checks import PHONE, WIDE
from test_chat_explorable import KERNEL

ARTIFACTS = ROOT / "test-artifacts" / "site"
WALKED = """async ([code, asked]) => {
  const { walk, heights } = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  return asked.map(arguments => {
    const points = walk(...arguments);
    return [points, heights(arguments[0], points)];
  });
}"""
BEST = """async ([code, asked]) => {
  const { bestRate } = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  return asked.map(arguments => bestRate(...arguments));
}"""
STARTS = [(-3.0, 1.0), (3.71, -2.29), (0.0, 0.0), (-4.0, 3.0)]


@pytest.fixture
def race() -> ValleyExplorable:
    return explore_valley(title="Four ways down")


def ball(page: Page) -> Locator:
    return page.get_by_role("slider", name="where all start")


def slider(page: Page, name: str) -> Locator:
    return page.get_by_role("slider", name=name, exact=True)


def tick(page: Page, name: str) -> Locator:
    return page.get_by_role("checkbox", name=re.compile(name))


def status(page: Page, text: str) -> None:
    expect(page.locator(".status")).to_contain_text(text)


def agrees(page: Page, race: ValleyExplorable) -> None:
    "What the page says is what Python finds with the same choices."
    rates = race.own_rates()
    told = [f"{way} {_height(race.landscape, walk(race.landscape, race.start, way, rates[way], falling=race.falling), race.step)}"
            + (f" (rate {rates[way]:g})" if race.best else "") for way in WAYS if way in race.ways and "out" not in
            _height(race.landscape, walk(race.landscape, race.start, way, rates[way], falling=race.falling), race.step)]
    status(page, f"{', '.join(told)} above the ground.")
    assert page.locator(".legend small").all_inner_texts() == [f"rate {rates[way]:g}" if way in race.ways else "" for way in WAYS]


def test_the_page_walks_as_python_does(draw, race: ValleyExplorable):
    page = draw(race)
    asked = list(product(LANDSCAPES, STARTS, WAYS, [0.001, 0.032, 0.05, 0.25, 1.0], [100], [False, True]))
    answers = page.evaluate(WALKED, [race._esm, [list(one) for one in asked]])
    assert len(answers) == 480
    lengths = set()
    for one, (points, high) in zip(asked, answers, strict=True):
        expected = walk(*one)
        lengths.add(len(expected))
        assert len(points) == len(expected), one
        for found, point in zip(points, expected, strict=True):
            assert found == pytest.approx(point, rel=1e-12, abs=1e-9), one
        assert high == pytest.approx(heights(one[0], expected), rel=1e-9, abs=1e-9), one
    assert {2, 3, 101} < lengths      # some go out of sight at once, some later, some never


def test_the_page_finds_the_same_best_rates(draw, race: ValleyExplorable):
    page = draw(race)
    asked = list(product(LANDSCAPES, STARTS[:2], WAYS, [100], [False, True]))
    answers = page.evaluate(BEST, [race._esm, [[*one, RATES] for one in asked]])
    assert answers == [best_rate(*one) for one in asked]


def test_the_ball_is_dragged_and_the_map_is_clicked(draw, race: ValleyExplorable):
    page = draw(race)
    agrees(page, race)
    box, at = page.locator(".map").bounding_box(), ball(page).locator(".ring").bounding_box()
    scale = box["width"] / 8

    def place(x: float, y: float) -> tuple[float, float]:
        return box["x"] + (4 + x) * scale, box["y"] + (3 - y) * scale

    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    page.mouse.down()
    page.mouse.move(*place(1, 1))
    page.mouse.move(*place(2, -1), steps=3)
    page.mouse.up()
    page.mouse.move(*place(0, 0))      # let go: it stays
    told = ball(page).get_attribute("aria-valuetext")
    x, y = (float(number.replace("−", "-")) for number in re.findall(r"[xy] (−?[\d.]+)", told))
    assert (x, y) == pytest.approx((2, -1), abs=0.03)
    race.start = [x, y]
    agrees(page, race)
    page.mouse.click(*place(-1, 2))
    expect(ball(page)).to_have_attribute("aria-valuetext", re.compile("x −(1.0|0.9)"))
    page.mouse.move(*place(-1, 2))
    page.mouse.down()
    page.mouse.move(box["x"] - 200, box["y"] - 200, steps=2)     # not over the edge
    page.mouse.up()
    expect(ball(page)).to_have_attribute("aria-valuetext", re.compile("x −4.00, y 3.00, 229 above"))


def test_the_keyboard_reaches_everything(draw, race: ValleyExplorable):
    page = draw(race)
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="landscape")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    race.rate = 0.04
    agrees(page, race)
    for name in "each at its own best rate", "the rate falls to zero":
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        expect(tick(page, name)).to_be_checked()
    race.best = race.falling = True
    agrees(page, race)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Play")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    race.step = 100
    agrees(page, race)
    page.keyboard.press("Tab")
    expect(ball(page)).to_be_focused()
    assert ball(page).locator(".ring").evaluate("e => getComputedStyle(e).strokeWidth") == "4px"
    for pressed, start in ("ArrowRight", [-2.9, 1.0]), ("ArrowUp", [-2.9, 1.1]), ("Shift+ArrowLeft", [-2.91, 1.1]), \
            ("ArrowDown", [-2.91, 1.0]), ("Home", [-3.0, 1.0]), ("ArrowLeft", [-3.1, 1.0]):
        page.keyboard.press(pressed)
        race.start = start
        expect(ball(page)).to_have_attribute("aria-valuetext", re.compile(f"^x −{-start[0]:.2f}, y {start[1]:.2f}, "))
        agrees(page, race)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    race.ways = ["momentum", "Adam", "sign"]
    agrees(page, race)
    assert "SGD" not in page.locator(".status").inner_text() and page.locator(".map .SGD").count() == 0
    for name in "momentum", "Adam", "sign":
        tick(page, f"^{name}").uncheck()
    expect(page.locator(".status")).to_have_text("No way is on show: tick one.")
    tick(page, "^Adam").check()
    tick(page, "^SGD").check()
    race.ways = ["SGD", "Adam"]
    agrees(page, race)


def test_who_is_out_of_sight_is_told(draw, race: ValleyExplorable):
    page = draw(race)
    slider(page, "learning rate").fill(str(RATES.index(0.1)))
    race.rate = 0.1
    agrees(page, race)
    gone = {way: len(walk("long valley", race.start, way, 0.1)) - 1 for way in ("SGD", "momentum")}
    status(page, f"above the ground. SGD: out of sight at step {gone['SGD']}. momentum: out of sight at step {gone['momentum']}.")
    slider(page, "step").fill("1")
    status(page, "After 1 step at rate 0.1: SGD 376, ")
    slider(page, "step").fill("0")
    expect(page.locator(".status")).to_have_text("The start is 29 above the ground, at x −3.00, y 1.00.")
    tick(page, "^Adam").uncheck()
    tick(page, "^sign").uncheck()
    slider(page, "step").fill("99")
    status(page, "After 99 steps at rate 0.1: none is left. SGD: out")
    page.get_by_text("The heights in numbers").click()
    assert page.locator("tbody tr").first.inner_text().split("\t")[:3] == ["SGD", "0.1", "29"]
    assert page.locator("tbody tr").first.inner_text().endswith("out of sight")


def test_turning_the_valley_turns_the_start(draw, race: ValleyExplorable):
    page = draw(race)
    slider(page, "step").fill("20")
    before = page.locator(".status").inner_text()
    menu = page.get_by_role("combobox", name="landscape")
    menu.select_option("turned valley")
    expect(page.locator(".formula")).to_contain_text("25 x² − 48 x y + 25 y²")
    expect(ball(page)).to_have_attribute("aria-valuetext", re.compile("^x −2.83, y −1.41, 29 above"))
    race.landscape, race.start, race.step = "turned valley", list(LANDSCAPES["turned valley"].start), 20
    agrees(page, race)
    after = page.locator(".status").inner_text()
    (same, adam), (_, other) = before.split(", Adam"), after.split(", Adam")
    assert after.startswith(same) and adam != other       # SGD and momentum do the same, Adam and sign do not
    menu.select_option("bent canyon")
    race.landscape, race.start = "bent canyon", list(LANDSCAPES["bent canyon"].start)
    agrees(page, race)
    menu.select_option("long valley")
    race.landscape, race.start = "long valley", [-3.0, 1.0]
    agrees(page, race)


def test_moving_the_rate_ends_the_best_rates(draw, race: ValleyExplorable):
    page = draw(race)
    tick(page, "each at its own").check()
    race.best = True
    agrees(page, race)
    status(page, "After 40 steps, each at its own best rate for 100 steps: SGD ")
    expect(slider(page, "learning rate")).to_have_attribute("aria-valuetext", "each its own")
    slider(page, "learning rate").press("ArrowLeft")
    expect(tick(page, "each at its own")).not_to_be_checked()
    race.best, race.rate = False, 0.025
    agrees(page, race)


def test_it_plays_to_the_end_and_waits(draw, race: ValleyExplorable):
    page = draw(race)
    slider(page, "step").fill("98")
    page.get_by_role("button", name="Play").click()
    expect(slider(page, "step")).to_have_value("100")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    expect(page.locator(".status")).to_have_attribute("aria-live", "polite")
    page.get_by_role("button", name="Play").click()     # once more from the start
    expect(page.locator(".status")).to_have_attribute("aria-live", "off")
    expect(slider(page, "step")).to_have_value(re.compile("^([4-9]|[1-9][0-9])$"))
    page.get_by_role("button", name="Pause").click()
    step = slider(page, "step").input_value()
    assert 3 < int(step) < 100
    page.wait_for_timeout(300)
    assert slider(page, "step").input_value() == step
    race.step = int(step)
    agrees(page, race)


def test_nothing_moves_by_itself_for_those_who_want_calm(draw, race: ValleyExplorable):
    page = draw(race, reduced_motion="reduce")
    button = page.get_by_role("button", name="Ten steps on")
    for step in 50, 60, 70, 80, 90, 100, 0, 10:
        button.click()
        expect(slider(page, "step")).to_have_value(str(step))
    page.wait_for_timeout(200)
    expect(slider(page, "step")).to_have_value("10")


def test_the_curve_chooses_the_step(draw, race: ValleyExplorable):
    page = draw(race)
    box = page.locator(".chart").bounding_box()
    page.mouse.click(box["x"] + box["width"] * (52 + 0.7 * 244) / 300, box["y"] + box["height"] / 2)
    expect(slider(page, "step")).to_have_value("70")


def test_the_kernel_and_the_page_follow_each_other(draw, race: ValleyExplorable):
    page = draw(race)
    page.evaluate(KERNEL, {"landscape": "bent canyon", "start": [1.5, 2], "rate": 0.0315, "best": False, "falling": True,
                           "step": 7, "ways": ["sign", "SGD"], "key": race.key})
    race.landscape, race.start, race.rate, race.falling, race.step = "bent canyon", [1.5, 2], 0.0315, True, 7
    race.ways = ["SGD", "sign"]
    agrees(page, race)
    status(page, "After 7 steps at rate 0.0315, which falls to zero: SGD ")
    expect(page.get_by_role("combobox")).to_have_value("bent canyon")
    expect(slider(page, "learning rate")).to_have_value(str(RATES.index(0.032)))
    tick(page, "^Adam").check()
    ball(page).press("ArrowUp")
    tick(page, "each at its own").check()
    slider(page, "step").fill("11")
    chosen = page.evaluate("['ways', 'start', 'best', 'step'].map(name => kernel.get(name))")
    assert chosen == [["SGD", "Adam", "sign"], [1.5, 2.1], True, 11]
    page.get_by_role("combobox").select_option("turned valley")
    chosen = page.evaluate("['landscape', 'start'].map(name => kernel.get(name))")
    race.landscape, race.start = chosen         # Python takes them
    assert chosen == ["turned valley", list(LANDSCAPES["turned valley"].start)]
    page.evaluate("kernel.set('start', [-1, -1]); kernel.set('best', false); kernel.set('falling', false)")
    race.start, race.step, race.falling, race.ways = [-1, -1], 11, False, ["SGD", "Adam", "sign"]
    agrees(page, race)


def test_it_works_by_touch_on_a_phone(draw, race: ValleyExplorable):
    page = draw(race, has_touch=True, viewport=PHONE)
    assert page.evaluate(WIDE) == []
    box = page.locator(".map").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 4)
    expect(ball(page)).to_have_attribute("aria-valuetext", re.compile(r"^x (2.0|1.9)\d, y 1.[45]"))
    height = page.locator(".ground").evaluate("e => e.nextElementSibling.offsetHeight")
    tick(page, "each at its own").tap()
    assert page.locator(".ground").evaluate("e => e.nextElementSibling.offsetHeight") == height    # what is below stays
    assert page.evaluate(WIDE) == []
    page.screenshot(path=ARTIFACTS / "explore-valley-phone.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("landscape", LANDSCAPES)
def test_it_stands_on_light_and_dark(draw, landscape: str, scheme: str):
    page = draw(explore_valley(landscape, best=landscape == "bent canyon", title="Four ways down"), color_scheme=scheme)
    inherited = page.evaluate("getComputedStyle(document.body).color")
    assert page.locator(".status").evaluate("e => getComputedStyle(e).color") == inherited
    page.screenshot(path=ARTIFACTS / f"explore-valley-{landscape.split()[0]}-{scheme}.png", full_page=True)


def test_without_scripts_there_is_a_table(draw, race: ValleyExplorable):
    page = draw(race, java_script_enabled=False)
    assert page.locator("tr").all_inner_texts() == ["\t".join(row) for row in race.table]
    assert [row[0] for row in race.table[1:]] == list(WAYS)


def test_it_is_small(race: ValleyExplorable):
    assert len(race.html().encode()) < 40_000
