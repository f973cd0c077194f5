"""The interactive pictures in JupyterLab, with Python behind them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Page, expect

from conftest import ROOT
from lab_driver import Lab, lab, run_all, run_line
from page_checks import strangers

ARTIFACTS = ROOT / "test-artifacts" / "site"
CELLS = ["""import torch
from geminiq.utils.explorables import explore_attention
weights = torch.softmax(torch.arange(8.).view(2, 4, 1, 1) * torch.eye(6), dim=-1)""",
         'explorer = explore_attention(weights, "the cat sat on the mat".split(), title="Eight heads")\nexplorer']
CHAT = ["""from geminiq import Conversation, ModelConfig, Transformer
from geminiq.data.tokenizer import ChatTokenizer
from geminiq.utils.chat_explorable import explore_chat
tokenizer = ChatTokenizer.train(["Mia is in the garden. bad dad"] * 9, 290)
sizes = dict(vocab_size=290, max_seq_len=96, d_model=32, n_layers=2, n_heads=4, tie_embeddings=False)
talk = Conversation(Transformer(ModelConfig(**sizes)), tokenizer, max_tokens=9)""", "explore_chat(talk, title='A talk')"]
LIVE = ["""from geminiq import Conversation, Sampling
from geminiq.utils.checkpointing import load_course_model
from geminiq.utils.live import explore_model, explore_reading
model, _, tokenizer = load_course_model()
talk = Conversation(model, tokenizer, Sampling(temperature=0))""",
        'explorer = explore_model(model, tokenizer, "Mia took the lamp.", "Who has the lamp?")\nexplorer',
        'explore_reading(model, tokenizer, "Mia took the lamp.")']
CHOSEN = "print(explorer.layer, explorer.head, explorer.query)"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "What JupyterLab has before it: a small notebook, one copy for each test, and the lessons."
    folder = tmp_path_factory.mktemp("course")
    small = new_notebook(cells=[new_code_cell(source) for source in CELLS], metadata=KERNEL)
    for name in "small", "reopened", "box", "reloaded":
        nbformat.write(small, folder / f"{name}.ipynb")
    for name, cells in (("chat", CHAT), ("live", LIVE)):
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in cells], metadata=KERNEL), folder / f"{name}.ipynb")
    shutil.copytree(ROOT / "nbs", folder / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return folder


@pytest.fixture(scope="module")
def jupyter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    "A running JupyterLab."
    with lab(folder, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def page(browser) -> Iterator[Page]:
    "A window; nothing may go wrong in it, nor be asked of the network."
    problems: list[str] = []
    page = browser.new_page(viewport={"width": 1300, "height": 1100})
    page.on("request", lambda request: problems.extend(strangers(request.url)))
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    page.close()
    assert not problems


def status(page: Page, text: str) -> None:
    "Every picture on the page comes to say this."
    expect(page.locator(".status").first).to_be_visible(timeout=120_000)
    for said in page.locator(".status").all():
        expect(said).to_contain_text(text)


def run_lesson(jupyter: Lab, page: Page, path: Path) -> None:
    "Open a lesson as it is before anybody has run it, and run it."
    lesson = nbformat.read(path, 4)
    for cell in lesson.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(lesson, path)
    jupyter.open(page, f"nbs/{path.name}")
    run_all(page)


def head(page: Page):
    "The slider for the head."
    return page.get_by_role("slider", name="head", exact=True).first


def test_mouse_keyboard_and_python_move_one_picture(jupyter: Lab, page: Page):
    jupyter.open(page, "small.ipynb")
    run_all(page)
    status(page, "layer 0, head 0: “mat” looks at")
    expect(page.get_by_role("img", name="Eight heads")).to_be_hidden()
    box = page.locator(".overview").bounding_box()
    page.locator(".overview").click(position={"x": 0.6 * box["width"], "y": 0.7 * box["height"]})
    page.get_by_role("radio").nth(1).click()
    page.mouse.move(0, 0)
    status(page, "layer 1, head 2: “cat” looks at “cat”")
    assert run_line(page, CHOSEN) == "1 2 1"
    page.get_by_role("radio").nth(1).focus()
    page.keyboard.press("ArrowDown")   # JupyterLab would go to the next cell
    head(page).press("ArrowRight")
    status(page, "layer 1, head 3: “sat”")
    assert run_line(page, CHOSEN) == "1 3 2"
    run_line(page, "explorer.layer, explorer.head = 0, 1; print()")
    status(page, "layer 0, head 1: “sat”")
    page.screenshot(path=ARTIFACTS / "lab-explorable.png")


def test_running_the_cell_again_binds_the_new_object(jupyter: Lab, page: Page):
    jupyter.open(page, "reloaded.ipynb")
    run_all(page)
    head(page).press("ArrowRight")
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    status(page, "layer 0, head 0")
    head(page).press("ArrowRight")
    assert run_line(page, CHOSEN) == "0 1 5"
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    page.reload()   # the kernel lives on, and its objects come back
    status(page, "layer 0, head 1")
    page.wait_for_function("globalThis.geminiqExplorables.models.size >= 2")
    head(page).press("ArrowRight")
    assert run_line(page, CHOSEN) == "0 2 5"


def test_it_is_a_widget_among_widgets(jupyter: Lab, page: Page):
    jupyter.open(page, "box.ipynb")
    run_all(page)
    status(page, "layer 0, head 0")
    run_line(page, "import ipywidgets; print(); display(ipywidgets.HBox([explorer, ipywidgets.IntText()]))")
    expect(page.locator(".status")).to_have_count(2)
    head(page).press("ArrowRight")
    status(page, "layer 0, head 1")


def test_a_model_is_talked_to(jupyter: Lab, page: Page):
    jupyter.open(page, "chat.ipynb")
    run_all(page)
    message = page.get_by_role("textbox", name="your message")
    message.press_sequentially("bad dad")    # each letter is a command of JupyterLab
    message.press("Enter")
    page.get_by_role("radiogroup", name="answer 1, token by token").get_by_role("radio").nth(3).click()
    page.get_by_label("system message").fill("Be brief.")
    message.press_sequentially("And Mia?")
    message.press("Enter")
    expect(page.get_by_role("radiogroup", name="answer 2, token by token")).to_be_visible()
    asked = "print([m['content'] for m in talk.messages[::2]], talk.system, len(talk.written))"
    assert run_line(page, asked) == "['bad dad', 'And Mia?'] Be brief. 9"
    assert page.locator(".jp-Notebook .jp-Cell").count() <= 4
    page.screenshot(path=ARTIFACTS / "lab-chat.png")


def test_a_live_picture_computes_with_what_the_kernel_sends(jupyter: Lab, page: Page):
    jupyter.open(page, "live.ipynb")
    run_all(page)
    question = page.get_by_role("textbox", name="question")
    question.press("End")
    question.press_sequentially(" bad dad")    # each letter is a command of JupyterLab
    question.press("Enter")
    expect(page.locator(".note").first).to_contain_text("computed by this page", timeout=60_000)
    said = page.locator(".heard").first.inner_text()
    assert run_line(page, "print(''.join(talk.reply(explorer.story + chr(10) + explorer.question)))") == said
    page.get_by_role("textbox", name="text").press("End")
    page.get_by_role("textbox", name="text").press_sequentially(" Dad")
    expect(page.locator(".status").last).to_contain_text("<|assistant|>")
    assert run_line(page, "print(explorer.question)") == "Who has the lamp? bad dad"
    page.screenshot(path=ARTIFACTS / "lab-live.png")


def test_a_saved_picture_is_there_again(jupyter: Lab, page: Page, folder: Path):
    jupyter.open(page, "reopened.ipynb")
    run_all(page)
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    saved = nbformat.read(folder / "reopened.ipynb", 4)
    assert "widgets" not in saved.metadata
    kinds = [sorted(output.data) for output in saved.cells[1].outputs]
    assert kinds == [["image/png", "text/plain"], ["text/html", "text/plain"]]
    saved.cells.append(new_markdown_cell("Changed by somebody else."))
    nbformat.write(saved, folder / "untrusted.ipynb")

    jupyter.close()
    jupyter.open(page, "reopened.ipynb")   # run and saved here: trusted
    head(page).press("ArrowRight")
    status(page, "layer 0, head 1")

    jupyter.open(page, "untrusted.ipynb")
    expect(page.locator(".jp-OutputArea img")).to_be_visible()
    expect(page.locator(".jp-OutputArea table")).to_be_visible()
    expect(page.locator(".status")).to_have_count(0)
    page.screenshot(path=ARTIFACTS / "lab-untrusted.png")


def test_the_lesson_on_attention_answers(jupyter: Lab, page: Page, folder: Path):
    path = folder / "nbs" / "07_attention.ipynb"
    lesson = nbformat.read(path, 4)
    explored = [output for cell in lesson.cells for output in cell.get("outputs", [])
                if "data-explorable" in output.get("data", {}).get("text/html", "")]
    assert explored, "lesson 7 holds no explorable: has it been run and saved with explore_attention in it?"
    run_lesson(jupyter, page, path)
    picture = page.locator("[data-drawn]").filter(has=page.get_by_role("radio")).first
    picture.scroll_into_view_if_needed()
    before = picture.locator(".status").inner_text()
    chosen = picture.get_by_role("radio", checked=True)
    chosen.press("Home")
    expect(picture.locator(".status")).not_to_have_text(before)
    picture.get_by_role("radio").nth(1).click()
    expect(picture.get_by_role("radio").nth(1)).to_be_checked()
    page.screenshot(path=ARTIFACTS / "lab-lesson.png")


def test_the_knobs_of_the_lesson_on_sampling_ask_python(jupyter: Lab, page: Page, folder: Path):
    run_lesson(jupyter, page, folder / "nbs" / "17_sampling.ipynb")
    knob = page.get_by_role("slider").nth(1)     # top-k
    knob.scroll_into_view_if_needed()
    said = page.locator(".jp-OutputArea-output", has_text="twenty draws:").last
    expect(said).to_contain_text("twenty draws:")
    for _ in range(11):
        knob.press("ArrowLeft")
    expect(said).to_contain_text("twenty draws: " + " ".join(["0"] * 20))
    page.screenshot(path=ARTIFACTS / "lab-knobs.png")
