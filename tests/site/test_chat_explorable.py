"""The chat to look into, in a real browser: as a page without a kernel, and with one that the test plays."""

import re

import pytest
from playwright.sync_api import Page, expect

from conftest import ROOT
from geminiq.data.tokenizer import ChatTokenizer
from geminiq.generation.chat import Conversation
from geminiq.models.transformer import Transformer
from geminiq.utils.chat_explorable import ChatExplorable, _names, explore_chat, look_back
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import make_generator
from page_checks import PHONE, WIDE

ARTIFACTS = ROOT / "test-artifacts" / "site"
SAID = [("Mia is in the garden. Ben is in the hall. Where is Ben?", "Ben is in the hall."), ("And Mia?", "Mia is in the garden.")]
TOKENIZER = ChatTokenizer.train([text for turn in SAID for text in turn] * 9, 310)
KERNEL = """state => {   // as much of a kernel as the picture can tell from a real one
  const listeners = {};
  const kernel = globalThis.kernel = {
    get: name => state[name], on: (event, listener) => (listeners[event] ??= []).push(listener), save_changes() {},
    set(name, value) { state[name] = value; listeners[`change:${name}`]?.forEach(listener => listener()); },
  };
  geminiqExplorables.dispatchEvent(new CustomEvent('arrival', { detail: kernel }));
}"""


def talk(said: list[tuple[str, str]] = SAID, **changes: int) -> Conversation:
    "A conversation with a random model whose heads look at something."
    sizes = {"vocab_size": 310, "max_seq_len": 160, "d_model": 32, "n_layers": 2, "n_heads": 4, "tie_embeddings": False}
    model = Transformer(ModelConfig(**{**sizes, **changes}), make_generator(1)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(8 if parameter.ndim > 1 else 1)
    conversation = Conversation(model, TOKENIZER, max_tokens=20)
    conversation.messages = [{"role": role, "content": text} for turn in said
                             for role, text in zip(("user", "assistant"), turn, strict=True)]
    return conversation


@pytest.fixture
def explorable() -> ChatExplorable:
    return explore_chat(talk(), title="Two people")


def token(page: Page, number: int, answer: int = 2):
    "A token of an answer."
    return page.get_by_role("radiogroup", name=f"answer {answer}, token by token").get_by_role("radio").nth(number)


def play_kernel(page: Page, explorable: ChatExplorable, **more: object) -> None:
    "From now on there is a kernel."
    state = explorable.get_state([*explorable.trait_names(choice=True)]) | {"live": True} | more
    page.evaluate(KERNEL, state | {"key": explorable.key})


def status(page: Page, text: str) -> None:
    "What is told of the chosen token, or comes to be told."
    expect(page.locator(".status")).to_have_text(text)


def percent(share: float) -> str:
    "As the page writes it."
    value = round(100 * float(share), 1)
    return "<0.1%" if value < 0.1 else f"{value:g}%" if value < 10 else f"{int(value + 0.5)}%"


def test_the_numbers_are_those_of_the_model(draw, explorable: ChatExplorable):
    page, conversation = draw(explorable), explorable.conversation
    read, _ = conversation.prompt(conversation.messages[:3])
    written = [*TOKENIZER.encode(SAID[1][1]), TOKENIZER.end_id]
    names = [re.sub("^ | $", "␣", name) for name in _names(conversation, range(310))]
    for number, step in enumerate(look_back(conversation.model, read, written)):
        token(page, number).click()
        shares = step.logits.softmax(-1)
        best, own = int(shares.argmax()), shares[written[number]]
        place = "the likeliest" if best == written[number] else (
            f"number {int((shares > own).sum()) + 1}; the likeliest was “{names[best]}”, {percent(shares[best])}")
        status(page, f"“{names[written[number]]}” had a probability of {percent(own)}: {place}.")
        rows = page.locator(".likely tr").all_inner_texts()
        assert [row.split("\t")[0].removeprefix("✓ ") for row in rows] == [names[i] for i in shares.topk(8).indices]
        assert [row.split("\t")[-1] for row in rows] == [percent(share) for share in shares.topk(8).values]
        looked = step.attention[1, 2]
        page.get_by_role("radio", name="layer 1, head 2").click()
        said = page.locator(".details p").first.inner_text()
        heard = names[[*read, *written][int(looked.argmax())]].strip("␣") or "␣"
        assert said.startswith("Layer 1, head 2: “") and f"looked at “{heard}” {round(100 * float(looked.max()))}%" in said
    expect(page.locator(".context")).to_contain_text("<|assistant|>Ben is in the hall.<|end|>")


def test_the_keyboard_reaches_everything(draw, explorable: ChatExplorable):
    page = draw(explorable)
    page.keyboard.press("Tab")
    expect(token(page, 0, answer=1)).to_be_focused()
    for key, chosen in ("ArrowRight", 1), ("End", 6), ("ArrowLeft", 5), ("Home", 0):
        page.keyboard.press(key)
        expect(token(page, chosen, answer=1)).to_be_focused()
        expect(token(page, chosen, answer=1)).to_have_attribute("aria-checked", "true")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(token(page, 1, answer=2)).to_be_focused()
    page.keyboard.press("Tab")
    for key, name in ("ArrowDown", "layer 0, head 0"), ("ArrowRight", "layer 0, head 1"), ("ArrowDown", "layer 1, head 1"), \
            ("End", "layer 1, head 3"), ("ArrowUp", "layer 0, head 3"):
        page.keyboard.press(key)
        expect(page.get_by_role("radio", name=name)).to_be_focused()
    page.keyboard.press("Home")
    expect(page.get_by_role("radio", name="all heads")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("details tbody tr")).to_have_count(8)


def test_without_a_kernel_there_is_nothing_to_write_in(draw, explorable: ChatExplorable):
    page = draw(explorable)
    expect(page.get_by_text("run the cell in JupyterLab")).to_be_visible()
    expect(page.get_by_role("textbox")).to_have_count(0)
    play_kernel(page, explorable)
    expect(page.get_by_role("textbox", name="your message")).to_be_visible()
    expect(page.get_by_text("run the cell in JupyterLab")).to_be_hidden()


def test_a_message_is_sent_and_its_answer_appears(draw, explorable: ChatExplorable):
    page = draw(explorable)
    play_kernel(page, explorable)
    message = page.get_by_role("textbox", name="your message")
    message.press("Enter")                                    # nothing is said by nothing
    assert page.evaluate("kernel.get('asked')") == ""
    message.fill("<b>Where?</b>")
    message.press("Enter")
    assert page.evaluate("kernel.get('asked')") == "<b>Where?</b>"
    expect(page.get_by_text("<b>Where?</b>")).to_be_visible()
    message.fill("again")
    message.press("Enter")                                    # one after the other
    assert page.evaluate("kernel.get('asked')") == "<b>Where?</b>" and message.input_value() == "again"
    page.evaluate("kernel.set('writing', 'In the ga')")
    expect(page.get_by_text("In the ga…")).to_be_visible()
    explorable.conversation.messages += [{"role": "user", "content": "<b>Where?</b>"}, {"role": "assistant", "content": "In it."}]
    then = explore_chat(explorable.conversation)
    state = {"turns": then.turns, "turn": 2, "asked": "", "writing": "", "note": "so much"}
    page.evaluate("state => Object.entries(state).forEach(([name, value]) => kernel.set(name, value))", state)
    expect(token(page, 0, answer=3)).to_have_attribute("aria-checked", "true")
    expect(page.get_by_text("In the ga…")).to_have_count(0)
    expect(page.locator(".note")).to_have_text("so much")
    expect(message).to_be_focused()
    token(page, 1, answer=1).click()
    assert page.evaluate("[kernel.get('turn'), kernel.get('token')]") == [0, 1]


def test_the_settings_reach_the_kernel(draw, explorable: ChatExplorable):
    page = draw(explorable)
    play_kernel(page, explorable)
    page.get_by_label("temperature").fill("0.7")
    page.get_by_label("system message").fill("Be brief.")
    page.get_by_role("button", name="Forget all").click()
    assert page.evaluate("['temperature', 'system', 'resets'].map(kernel.get)") == [0.7, "Be brief.", 1]
    page.evaluate("kernel.set('turns', [])")
    expect(page.locator(".line")).to_have_count(0)
    expect(page.locator(".likely")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_stands_on_light_and_dark(draw, explorable: ChatExplorable, scheme: str):
    page = draw(explorable, color_scheme=scheme)
    play_kernel(page, explorable, note="a note")
    token(page, 4).click()
    inherited = page.evaluate("getComputedStyle(document.body).color")
    for part in (".status", ".likely th", ".heads button", ".chips button", "input[type=text]", ".context"):
        assert page.locator(part).first.evaluate("e => getComputedStyle(e).color") == inherited, part
    page.screenshot(path=ARTIFACTS / f"explore-chat-{scheme}.png", full_page=True)


@pytest.mark.parametrize("heads", [4, 16])
def test_it_fits_a_phone(draw, heads: int):
    long = talk([(f"{'x' * 90} {SAID[0][0]}", SAID[0][1])], n_heads=heads, d_model=64)
    explorable = explore_chat(long)
    page = draw(explorable, viewport=PHONE)
    play_kernel(page, explorable)
    token(page, 4, answer=1).click()
    assert page.evaluate(WIDE) == []
    page.screenshot(path=ARTIFACTS / f"explore-chat-phone-{heads}.png", full_page=True)


def test_what_is_said_is_text(draw):
    page = draw(explore_chat(talk([("</script><b>&", "<i>\n"), ("\0\x1b", "")])))
    expect(page.get_by_text("</script><b>&").first).to_be_visible()
    assert page.locator("b, i").count() == 0
    status(page, page.locator(".status").inner_text())


def test_nothing_was_said(draw):
    page = draw(explore_chat(talk([]), title="Silence"))
    expect(page.get_by_text("Silence")).to_be_visible()
    assert page.locator(".likely").is_hidden()


def test_without_scripts_there_is_a_table(draw, explorable: ChatExplorable):
    page = draw(explorable, java_script_enabled=False)
    assert page.locator("tr").last.inner_text() == "model\tMia is in the garden."
    assert "“ garden”" in explorable.still.alt


def test_who_sees_an_answer_can_ask_again(explorable: ChatExplorable, monkeypatch):
    sent: list[dict] = []
    monkeypatch.setattr(explorable, "send_state", lambda key: sent.append(explorable.get_state(key)))
    explorable.asked = "And Ben?"
    answered = next(state for state in sent if "turns" in state)
    assert len(answered["turns"]) == 3
    assert answered["asked"] == answered["writing"] == ""
