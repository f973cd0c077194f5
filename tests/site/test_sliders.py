"""The clock of rotary positions and the costs of a model, on a page of their own: what they say is what PyTorch computes."""

import re
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from conftest import ROOT
from geminiq.models.embeddings import RotaryEmbedding
from geminiq.utils.config import ModelConfig, load_config
from geminiq.utils.sliders import RotationExplorable, budget, explore_budget, explore_rotation
from page_checks import PHONE, WIDE

ARTIFACTS = ROOT / "test-artifacts" / "site"
QUERY, KEY = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PLACES = (12, 5), (43, 36), (0, 63), (63, 0), (7, 7), (30, 31)
SLIDERS = {"vocab_size": "vocabulary V", "d_model": "width D", "n_layers": "layers L", "d_ff": "hidden width F",
           "n_heads": "query heads H", "n_kv_heads": "key/value heads K", "max_seq_len": "text length T"}
EXPLORE = {"rotation": lambda: explore_rotation(title="The clock"),
           "budget": lambda: explore_budget(load_config("tiny").model, title="What a model costs")}


def slider(page: Page, name: str) -> Locator:
    "A slider, or a hand, by its name."
    return page.get_by_role("slider", name=name)


def number(text: str) -> float:
    "What a text says last, as a number."
    return float(re.findall(r"[−\d.]+", text)[-1].replace("−", "-"))


def score(page: Page) -> float:
    "The score on the page."
    return number(page.locator(".total").inner_text())


def stand(page: Page, query: int, key: int) -> None:
    "Move both to their places."
    slider(page, "the query stands at").fill(str(query))
    slider(page, "the key stands at").fill(str(key))


def chosen(page: Page, explorable: RotationExplorable, hand: str) -> list[float]:
    "The own angles of all hands, as the page tells them."
    hands = (slider(page, f"{hand} of pair {pair}") for pair in range(len(explorable.speeds)))
    return [float(found.get_attribute("aria-valuenow")) for found in hands]


@pytest.mark.parametrize("base", [100.0, 10_000.0])
def test_the_score_is_that_of_the_rotary_embedding(draw, base: float):
    page, rotary = draw(explore_rotation(base=base, query=QUERY, key=KEY)), RotaryEmbedding(8, base=base)
    for m, n in PLACES:
        stand(page, m, n)
        query, key = rotary(torch.stack([QUERY, KEY])[None, None], torch.tensor([[m, n]]))[0, 0]
        assert score(page) == pytest.approx((query @ key).item(), abs=0.0051)
        expected = (query * key).view(2, 4).sum(0).tolist()      # number i is paired with i + 4
        assert [number(text) for text in page.locator("figure > small").all_inner_texts()] == pytest.approx(expected, abs=0.0051)
    expect(page.locator(".status")).to_contain_text("The query stands at 30, the key at 31, 1 place after it. Score")


def test_moving_both_leaves_the_score_and_moving_one_does_not(draw):
    page = draw(explore_rotation())
    before, both = score(page), slider(page, "move both")
    assert both.get_attribute("max") == "56"
    for place in 0, 20, 56:
        both.fill(str(place))
        expect(page.locator(".status")).to_contain_text(f"query stands at {place + 7}, the key at {place}, 7 places before it.")
        assert score(page) == before
    slider(page, "the query stands at").press("ArrowLeft")
    assert score(page) != before
    expect(page.locator(".status")).to_contain_text("The query stands at 62, the key at 56, 6 places before it.")
    assert both.get_attribute("max") == "57"
    stand(page, 9, 9)
    expect(page.locator(".status")).to_have_text("The query stands at 9, the key at the same place. Score 4.00 of at most 4.00. "
                                                 "Move both, and it stays.")


def test_a_hand_is_dragged_to_another_angle(draw):
    explorable = explore_rotation()
    page = draw(explorable)
    for hand, pair, (x, y), turned in ("query", 0, (1, 0), 90), ("key", 2, (0, 1), 180), ("key", 0, (-1, -1), 315):
        tip = slider(page, f"{hand} of pair {pair}").locator(".tip").bounding_box()
        clock = page.locator("figure svg").nth(pair).bounding_box()
        middle = clock["x"] + clock["width"] / 2, clock["y"] + clock["height"] / 2
        page.mouse.move(tip["x"] + tip["width"] / 2, tip["y"] + tip["height"] / 2)
        page.mouse.down()
        page.mouse.move(middle[0] + 20 * x, middle[1] + 20 * y)
        page.mouse.move(middle[0] + 60 * x, middle[1] + 60 * y, steps=3)
        page.mouse.up()
        page.mouse.move(middle[0], middle[1] - 50)    # let go: it stays
        expect(slider(page, f"{hand} of pair {pair}")).to_have_attribute("aria-valuetext", re.compile(f"turned to {turned}°"))
    explorable.query_angles, explorable.key_angles = (chosen(page, explorable, hand) for hand in ("query", "key"))
    assert explorable.query_angles[0] != 0 and explorable.key_angles[1] == explorable.key_angles[3] == 0
    assert score(page) == pytest.approx(sum(explorable.shares()), abs=0.0051)
    assert slider(page, "key of pair 0").evaluate("e => getComputedStyle(e).outlineStyle") == "none"
    page.screenshot(path=ARTIFACTS / "explore-rotation-dragged.png", full_page=True)


def test_the_keyboard_turns_hands_and_moves_sliders(draw):
    explorable = explore_rotation()
    page = draw(explorable)
    for key, says in ("Tab", "query stands at 12"), ("ArrowRight", "query stands at 13"), ("Tab", "key at 5"), \
            ("Home", "key at 0"), ("Tab", "key at 0"), ("ArrowRight", "query stands at 14, the key at 1,"):
        page.keyboard.press(key)
        expect(page.locator(".status")).to_contain_text(says)
    hand = slider(page, "key of pair 0")
    page.keyboard.press("Tab")
    expect(hand).to_be_focused()
    assert hand.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    for key, angle in ("ArrowRight", 5), ("PageUp", 50), ("ArrowDown", 45), ("PageDown", 0), ("ArrowLeft", 355), \
            ("Home", 0), ("ArrowUp", 5):
        page.keyboard.press(key)
        expect(hand).to_have_attribute("aria-valuenow", str(angle))
    explorable.query_position, explorable.key_position, explorable.key_angles = 14, 1, [5.0, 0.0, 0.0, 0.0]
    assert score(page) == pytest.approx(sum(explorable.shares()), abs=0.0051)
    page.get_by_text("The numbers").click()
    shown = [number(line) for line in page.locator("tbody tr").all_inner_texts()]
    assert shown == pytest.approx(explorable.shares(), abs=0.0051)


def test_what_is_chosen_in_python_is_where_the_page_begins(draw):
    explorable = explore_rotation(pairs=3, positions=8, base=10.0)
    explorable.query_position, explorable.query_angles = 7, [10.0, 20.0, 30.0]
    page = draw(explorable)
    assert score(page) == pytest.approx(sum(explorable.shares()), abs=0.0051)
    assert chosen(page, explorable, "query") == [10, 20, 30]
    assert slider(page, "the key stands at").get_attribute("max") == "7"


def rows(page: Page, caption: str) -> dict[str, str]:
    "What a table of the costs says, by part; under the empty name what it says in all."
    table = page.locator("table").filter(has=page.locator("caption", has_text=caption))
    cells = [line.split("\t") for line in table.locator("tr").all_inner_texts()]
    return {name.replace(" (the same table)", "").strip(): value for name, value, _ in cells} | {
        "": table.locator("caption").inner_text().split(": ")[1]}


def whole(table: dict[str, str]) -> dict[str, int]:
    "The exact numbers of a table."
    return {name: int(value.replace(",", "")) for name, value in table.items()}


def sizes(page: Page) -> dict[str, Any]:
    "What the sliders and ticks say."
    told = {key: page.locator("label", has_text=name).locator("output").inner_text() for key, name in SLIDERS.items()}
    tied, normed = (page.get_by_role("checkbox", name=name).is_checked() for name in ("one table", "norms on"))
    return whole(told) | {"tie_embeddings": tied, "qk_norm": normed}


def agrees(page: Page) -> ModelConfig:
    "The model that the page shows, with the costs that Python counts; sizes that do not fit would be refused."
    config = ModelConfig(**sizes(page), attention_type="gqa")
    cost = budget(config)
    for kind, caption in ("parameters", "parameters"), ("flops", "FLOPs"):
        assert whole(rows(page, caption)) == cost[kind] | {"": sum(cost[kind].values())}
    return config


UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def test_each_known_model_costs_what_python_counts(draw):
    page = draw(explore_budget(load_config("tiny").model))
    menu = page.get_by_role("combobox", name="model")
    names = ["tiny", "small", "medium", "large", "the course's model", "GPT-2 small, in size", "LLaMA 7B"]
    assert menu.locator("option").all_inner_texts() == [*names, "your own"]
    for name in names:
        menu.select_option(name)
        config = agrees(page)
        if name in ("tiny", "small", "medium", "large"):
            assert budget(config) == budget(load_config(name).model)
        for part, told in rows(page, "memory").items():
            amount, unit = told.split()
            exact = budget(config)["bytes"].get(part, sum(budget(config)["bytes"].values()))
            assert float(amount.replace(",", "")) * UNITS[unit] == pytest.approx(exact, rel=0.0051)
    assert whole(rows(page, "parameters"))[""] == 6_738_415_616       # as published
    expect(page.locator(".status")).to_have_text(
        "6.74 billion parameters, 64.2% of them in the feed-forward layers. To read the last of 2,048 tokens takes 14.3 billion "
        "FLOPs; the weights take 13.5 GB, the text's keys and values 1.07 GB.")


@pytest.mark.parametrize("name", ["tiny", "large"])
def test_no_slider_leads_to_what_is_no_model(draw, name: str):
    page = draw(explore_budget(load_config(name).model))
    for moved in ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers", "vocab_size", "max_seq_len", "n_heads", "d_model"):
        input = slider(page, SLIDERS[moved])
        for place in (0, 1, 2, int(input.get_attribute("max")) // 2, int(input.get_attribute("max"))):
            input.fill(str(place))
            agrees(page)
    expect(page.get_by_role("combobox", name="model")).to_have_value("your own")


def test_ticks_and_heads_change_what_they_should(draw):
    page = draw(explore_budget(load_config("tiny").model))
    before = agrees(page)
    page.get_by_role("checkbox", name="one table").uncheck()
    page.get_by_role("checkbox", name="norms on").check()
    untied = agrees(page)
    assert sum(budget(untied)["parameters"].values()) - sum(budget(before)["parameters"].values()) == 2048 * 192 + 4 * 2 * 32
    slider(page, "query heads H").press("ArrowRight")
    assert (agrees(page).n_heads, agrees(page).n_kv_heads) == (8, 8)       # each had keys of its own, and has
    slider(page, "key/value heads K").press("Home")
    assert (agrees(page).n_heads, agrees(page).n_kv_heads) == (8, 1)
    page.get_by_role("combobox", name="model").select_option("tiny")
    assert agrees(page).n_heads == 6


def test_the_keyboard_reaches_every_size(draw):
    page = draw(explore_budget(ModelConfig(vocab_size=300, d_model=64, n_heads=4, n_kv_heads=2, attention_type="gqa", d_ff=100)))
    assert page.get_by_role("combobox", name="model").input_value() == "this model"
    assert agrees(page).d_ff == 100
    page.keyboard.press("Tab")
    for name in SLIDERS.values():
        page.keyboard.press("Tab")
        expect(slider(page, name)).to_be_focused()
        before = sizes(page)
        page.keyboard.press("ArrowLeft")
        assert sizes(page) != before
        shown = page.locator("label", has_text=name).locator("output").inner_text()
        expect(slider(page, name)).to_have_attribute("aria-valuetext", shown)
        agrees(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert not agrees(page).tie_embeddings


@pytest.mark.parametrize("name", EXPLORE)
def test_it_fits_a_phone(draw, name: str):
    page = draw(EXPLORE[name](), viewport=PHONE)
    page.locator(".status").wait_for()
    assert page.evaluate(WIDE) == []
    page.screenshot(path=ARTIFACTS / f"explore-{name}-phone.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", EXPLORE)
def test_it_stands_on_light_and_dark(draw, name: str, scheme: str):
    page = draw(EXPLORE[name](), color_scheme=scheme)
    inherited = page.evaluate("getComputedStyle(document.body).color")
    assert page.locator(".status").evaluate("e => getComputedStyle(e).color") == inherited
    page.screenshot(path=ARTIFACTS / f"explore-{name}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("name", EXPLORE)
def test_without_scripts_there_is_a_table(draw, name: str):
    page = draw(EXPLORE[name](), java_script_enabled=False)
    first = {"rotation": "0\t6.3 positions\t0.75", "budget": "embedding table\t393,216\t0"}
    assert page.locator("tr").nth(1).inner_text() == first[name]
