"""The model in the page, in a real browser: it answers as PyTorch does, whole and broken."""

import re
import shutil

import pytest
import torch
from playwright.sync_api import Page, expect

from conftest import ROOT
from geminiq.data.tokenizer import train_tokenizer
from geminiq.generation.chat import Conversation
from geminiq.generation.generate import generate
from geminiq.generation.sampling import Sampling
from geminiq.models.attention import record_attention
from geminiq.models.transformer import Transformer
from geminiq.utils.chat_explorable import look_back
from geminiq.utils.checkpointing import load_course_model
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import make_generator
from geminiq.utils.live import ModelExplorable, explore_model, explore_reading, save_page, source_of
from geminiq.utils.web import web_file
from page_checks import PHONE, WIDE

ARTIFACTS = ROOT / "test-artifacts" / "site"
STORY = "Mia took the lamp. She went to the garden. Ben stayed in the kitchen."


@pytest.fixture(scope="module")
def explorable() -> ModelExplorable:
    course = load_course_model()
    return explore_model(course.model, course.tokenizer, STORY, "Who has the lamp?", title="Ask", token=3)


def ask(page: Page, question: str, story: str | None = None) -> str:
    "Ask, and wait for the answer."
    if story is not None:
        page.get_by_role("textbox", name="story").fill(story)
    field = page.get_by_role("textbox", name="question")
    field.fill(question)
    field.press("Enter")
    return answered(page)


def answered(page: Page) -> str:
    "What it says, once it has said all."
    expect(page.locator("[aria-busy=false]")).to_be_attached()
    expect(page.locator(".note")).to_contain_text("computed by this page")
    return page.locator(".heard").inner_text()


def conversation() -> Conversation:
    course = load_course_model()
    return Conversation(course.model, course.tokenizer, Sampling(temperature=0))


def test_it_says_what_the_model_says_and_as_surely(draw, explorable: ModelExplorable):
    page = draw(explorable)
    for question in ("Where is Ben?", "Where is Zoe?", "What is 12 plus 30?", "🙂 <|end|> Who are you?"):
        talk = conversation()
        assert ask(page, question) == "".join(talk.reply(f"{STORY}\n{question}"))
        for number, step in enumerate(look_back(talk.model, talk.read, talk.written)):
            share = float(step.logits.softmax(-1)[talk.written[number]])
            shown = page.get_by_role("radiogroup", name="answer 1").get_by_role("radio").nth(number).inner_text()
            rounded = 12 * share * (1 - share)      # weights of 8 bits move what the model is sure of least
            assert float(re.search(r"([\d.]+)%", shown)[1]) == pytest.approx(100 * share, abs=0.51 + rounded), (question, number)


def test_without_a_layer_it_says_what_the_model_says_without_it(draw, explorable: ModelExplorable):
    page = draw(explorable)
    page.get_by_text("Break it").click()
    page.get_by_role("button", name="layer 2", exact=True).click()
    found = answered(page)
    talk = conversation()
    talk.model.blocks[2].forward = lambda x, *args, **more: x
    assert found == "".join(talk.reply(f"{STORY}\nWho has the lamp?")) != explorable.turns[0]["answer"]["text"]
    page.get_by_role("button", name="Make it whole").click()
    expect(page.locator(".heard")).to_have_text(explorable.turns[0]["answer"]["text"])


@torch.no_grad()
def test_without_a_head_too(draw, explorable: ModelExplorable):
    page = draw(explorable)
    page.get_by_text("Break it").click()
    for head in range(6):
        page.get_by_role("button", name=f"layer 1, head {head}", exact=True).click()
    expect(page.get_by_role("button", name="layer 1, head 5")).to_have_attribute("aria-pressed", "true")
    talk = conversation()
    talk.model.blocks[1].attention.output.weight.zero_()
    expect(page.locator(".heard")).to_have_text("".join(talk.reply(f"{STORY}\nWho has the lamp?")))


def test_the_sliders_redraw(draw, explorable: ModelExplorable):
    page = draw(explorable)
    ask(page, "What is 12 plus 30?", "Nobody knows.")
    again, temperature = page.get_by_role("button", name="Draw again"), page.get_by_role("slider", name="temperature")
    expect(again).to_be_disabled()
    for _ in range(20):
        temperature.press("ArrowRight")
    said = set()
    for _ in range(6):
        again.click()
        said.add(answered(page))
    assert len(said) > 1
    page.get_by_role("slider", name="top-k").press("Home")      # only the likeliest
    expect(page.locator(".heard")).to_have_text("".join(conversation().reply("Nobody knows.\nWhat is 12 plus 30?")))


def test_what_cannot_be_is_said(draw, explorable: ModelExplorable, tmp_path):
    page = draw(explorable)
    page.get_by_role("textbox", name="story").fill(STORY * 26)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".note")).to_contain_text("reads at most 383: shorten the story")
    assert "lamp" in ask(page, "Who has the lamp?", STORY)


def test_a_picture_without_its_model_still_shows_the_first_answer(browser, explorable: ModelExplorable, draw, tmp_path):
    page = draw(explorable)
    answered_before = page.locator(".chips").first.inner_text()
    page.close()
    shutil.rmtree(tmp_path / "_static")
    page = browser.new_page()
    page.goto(page_address := (tmp_path / "page.html").as_uri())
    assert page_address and page.locator(".chips").first.inner_text() == answered_before
    page.get_by_role("textbox", name="question").press("End")
    page.get_by_role("textbox", name="question").fill("Where is Ben?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".note")).to_contain_text("run the cell in JupyterLab")
    page.close()


def test_the_keyboard_reaches_everything(draw, explorable: ModelExplorable):
    page = draw(explorable)
    reached = []
    page.get_by_role("textbox", name="story").focus()
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("""() => {
            let a = document.activeElement;
            while (a.shadowRoot) a = a.shadowRoot.activeElement;
            return a.ariaLabel ?? a.type ?? a.tagName }"""))
    assert reached[:2] == ["question", "submit"] and "SUMMARY" in reached and reached.count("range") == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_stands_on_light_and_dark(draw, explorable: ModelExplorable, scheme: str):
    page = draw(explorable, color_scheme=scheme)
    ask(page, "Where is Mia?")
    page.screenshot(path=ARTIFACTS / f"model-{scheme}.png", full_page=True)
    assert page.evaluate(WIDE) == []


def test_it_fits_a_phone(draw, explorable: ModelExplorable):
    page = draw(explorable, viewport=PHONE)
    page.get_by_text("Break it").click()
    assert page.evaluate(WIDE) == []
    page.screenshot(path=ARTIFACTS / "model-phone.png", full_page=True)


def test_a_page_alone_needs_no_server(browser, explorable: ModelExplorable, tmp_path):
    save_page(tmp_path / "alone.html", explorable)
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "alone.html").as_uri())
    assert ask(page, "Where is Ben?") == "".join(conversation().reply(f"{STORY}\nWhere is Ben?"))
    assert not [url for url in asked if not url.startswith(("file:", "blob:"))]
    page.close()


def test_a_model_that_continues_texts_goes_on(draw):
    tokenizer = train_tokenizer([STORY] * 20, 300)
    model = Transformer(ModelConfig(vocab_size=300, max_seq_len=64, d_model=32, n_layers=2, n_heads=2), make_generator(0))
    page = draw(explore_model(model, tokenizer, "Mia took"))
    page.get_by_role("textbox", name="text").fill("Ben went")
    page.get_by_role("button", name="Go on").click()
    answered(page)
    ids = torch.tensor([[*tokenizer.start_ids, *tokenizer.encode("Ben went")]])
    written = generate(model, ids, 64 - ids.shape[1], sampling=Sampling(temperature=0), stop_ids=tokenizer.stop_ids)[0].tolist()
    expect(page.get_by_role("radiogroup", name="answer 1").get_by_role("radio")).to_have_count(len(written[:60]))
    assert page.locator(".heard").inner_text().split() == tokenizer.decode(written[:60]).split()


def test_the_site_has_the_model_of_every_saved_picture():
    course = load_course_model()
    here, found = source_of(web_file(course.model, course.tokenizer)), set()
    for path in ROOT.glob("nbs/**/*.ipynb"):
        found |= set(re.findall(r'\\"source\\":\\"(\w+)', path.read_text()))
    assert found == {here}


@torch.no_grad()
def test_every_head_follows_what_is_typed(draw):
    course, text = load_course_model(), "Mia took the lamp."
    page = draw(explore_reading(course.model, course.tokenizer, text, layer=1, head=3))
    page.get_by_role("textbox", name="text").press("End")
    page.get_by_role("textbox", name="text").press_sequentially(" Who has it?")
    with record_attention(course.model) as weights:
        course.model(torch.tensor([course.tokenizer.apply_chat_template([{"role": "user", "content": f"{text} Who has it?"}])]))
    names = ["</s>", "<|user|>", *f"{text} Who has it?".replace(".", " .").replace("?", " ?").split(), "<|end|>", "<|assistant|>"]
    expect(page.get_by_role("radio")).to_have_count(len(names))
    for layer, head in ((1, 3), (3, 0)):
        page.get_by_role("slider", name="layer").fill(str(layer))
        page.get_by_role("slider", name="head", exact=True).fill(str(head))
        row = (100 * weights[layer][0, head, -1]).round().int()
        best = [key for key in row.argsort(descending=True, stable=True)[:1].tolist() if row[key] > 0]
        expect(page.locator(".status")).to_contain_text(
            f"layer {layer}, head {head}: “<|assistant|>” looks at “{names[best[0]]}” {row[best[0]]}%")


def test_a_text_too_long_to_look_at_is_refused_in_words(draw):
    course = load_course_model()
    page = draw(explore_reading(course.model, course.tokenizer, "Mia took the lamp."))
    page.get_by_role("textbox", name="text").fill("Ben " * 140)
    expect(page.locator(".note")).to_contain_text("the picture has room for 128")
    page.get_by_role("textbox", name="text").fill("Ben")
    expect(page.get_by_role("radio")).to_have_count(5)


def test_all_tokens_are_more_than_fifty(draw):
    tokenizer = train_tokenizer([STORY] * 20, 300)
    model = Transformer(ModelConfig(vocab_size=300, max_seq_len=64, d_model=32, n_layers=2, n_heads=2), make_generator(0))
    page = draw(explore_model(model, tokenizer, "Mia took"))
    page.get_by_role("slider", name="temperature").press("End")
    answered(page)
    ranks = []
    for token in page.get_by_role("radiogroup", name="answer 1").get_by_role("radio").all()[:12]:
        token.click()
        ranks += re.findall(r"number (\d+);", page.locator(".status").inner_text())
    assert max(map(int, ranks)) > 50
