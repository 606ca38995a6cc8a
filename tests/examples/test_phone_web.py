"""The page in headless Chromium at a phone's size: sprat's answers, offline, with the cache kept between turns."""

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tiny_checkpoint import write_checkpoint

import sprat

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "phone_web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = {"width": 390, "height": 844}
LOAD_MS = ANSWER_MS = 300_000
IS_LOADED = """!document.querySelector("button").disabled
    || document.querySelector("#status").textContent.startsWith("Error")"""
IS_IDLE = """n => document.querySelector("button").textContent == "Send"
    && document.querySelectorAll("article").length == n"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A copy of the example with its packages, served; returns the folder and the address."""
    pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None or shutil.which("npm") is None:
        pytest.skip("needs Chromium and npm: apt install chromium npm")
    folder = tmp_path_factory.mktemp("phone") / "web"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "model"))
    installed = subprocess.run(
        ["npm", "install", "--ignore-scripts"], check=False, cwd=folder, capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"npm install failed: {installed.stderr[-300:]}")
    command = [sys.executable, "serve.py", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        yield folder, server.stdout.readline().strip()
        server.kill()


@pytest.fixture(scope="module", params=["demo", "qwen2"])
def model(request, site, tmp_path_factory):
    """Name and folder of an MLA student with experts, and of a dense one with random weights.

    Logits of random weights are close to each other, so theirs are not rounded.
    """
    folder = site[0] / request.param
    source = "demo" if request.param == "demo" else write_checkpoint(tmp_path_factory.mktemp("source") / "ck", "qwen2")
    sprat.export(source, folder, quant="int8" if request.param == "demo" else "f32", formats=["onnx"])
    return request.param, folder


@pytest.fixture
def page(site, model):
    """The opened page; afterwards there must be no error, and no request to another machine."""
    from playwright.sync_api import sync_playwright

    problems, address = [], site[1]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=PHONE, is_mobile=True, has_touch=True)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: urlsplit(request.url).netloc in address or problems.append(request.url))
        page.goto(f"{address}?model={model[0]}/")
        page.wait_for_function(IS_LOADED, timeout=LOAD_MS)
        assert page.locator("#status").text_content() == "ready, offline"
        yield page
        browser.close()
    assert problems == []


def ask(page, question):
    """Send ``question``; the answer and its reasoning."""
    n_messages = page.locator("article").count()
    page.fill("textarea", question)
    page.click("button")
    page.wait_for_function(IS_IDLE, arg=n_messages + 2, timeout=ANSWER_MS)
    bubble = page.locator("article.assistant").last
    return bubble.locator("> p").text_content(), bubble.locator("details p").text_content()


def without_half_characters(text):
    """Random weights end in the middle of a character, which the page leaves out."""
    return text.rstrip("\ufffd").strip()


def test_the_answers_are_sprats(page, model):
    messages = []
    with sprat.load(model[1], backend="onnx") as engine:
        questions = ("What is 17 plus 25?", "Turn on the kitchen light")  # random weights fill the context at once
        for question in questions if model[0] == "demo" else questions[:1]:
            messages.append({"role": "user", "content": question})
            message = engine.chat(messages, max_tokens=512, temperature=0)["choices"][0]["message"]
            messages.append(message)
            answer, reasoning = ask(page, question)
            assert reasoning == message.get("reasoning_content", "")
            assert without_half_characters(answer) == without_half_characters(message["content"])
    assert page.locator("details").first.get_attribute("open") is None
    status = page.locator("#status").text_content()
    assert status.endswith(" from the cache")
    assert status.endswith(", 0 from the cache") == (model[0] != "demo")


def test_the_page_fits_a_phone(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("textarea").is_visible()


def test_stop_ends_an_answer(page):
    page.fill("textarea", "Count from one to a hundred.")
    page.click("button")
    page.wait_for_function("document.querySelector('#status').textContent.includes('tokens/s')", timeout=ANSWER_MS)
    page.click("button")
    page.wait_for_function(IS_IDLE, arg=2, timeout=ANSWER_MS)
