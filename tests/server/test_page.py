"""The chat page in headless Chromium at a phone's size: answers, markdown without HTML, stop, key, no other request."""

import shutil
from urllib.parse import urlsplit

import pytest
from http_server import running_server
from scripted_model import saying, scripted_engine

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = {"width": 390, "height": 844}
WAIT_MS = 60_000
IS_IDLE = "() => document.querySelector('#send').textContent === 'Send'"
HOSTILE = (
    "# Title\n\nText with **bold**, *soft*, `code` and [a link](https://example.com).\n\n- one\n- two\n\n"
    "```\n<b>not bold</b>\n```\n\n<img src=x onerror=\"document.title='owned'\"> [x](javascript:alert(1))"
)


@pytest.fixture
def open_page():
    """Opens a page; afterwards there must be no error, and no request to another machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    problems = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def opened(address):
            page = browser.new_page(viewport=PHONE, is_mobile=True, has_touch=True)
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda asked: urlsplit(asked.url).netloc in address or problems.append(asked.url))
            page.goto(address)
            return page

        yield opened
        browser.close()
    assert problems == []


def ask(page, question):
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_function(IS_IDLE)
    return page.locator("article.assistant").last


def test_an_answer_with_its_reasoning_folded_and_its_speed(server, open_page):
    page = open_page(server.address)
    page.wait_for_selector("option", state="attached")
    answer = ask(page, "What is 17 plus 25?")
    assert answer.locator("> div").inner_text() == "42"
    assert answer.locator("details").get_attribute("open") is None
    assert "017+025" in answer.locator("details p").text_content()
    page.wait_for_function("() => document.querySelector('#status').textContent.includes('MB in memory')")
    assert "tokens/s" in page.inner_text("#status")
    ask(page, "Turn on the kitchen light")
    assert page.locator("article").count() == 4
    page.click("#clear")
    assert page.locator("article").count() == 0


def test_the_page_fits_a_phone(server, open_page):
    page = open_page(server.address)
    ask(page, "x" * 300)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("#send").is_visible()


def test_markdown_is_shown_and_html_of_the_model_is_text(student, monkeypatch, open_page):
    monkeypatch.setattr("sprat.server.model_pool.load", lambda *_, **__: scripted_engine(saying(HOSTILE)))
    with running_server({"m": student}) as running:
        page = open_page(running.address)
        answer = ask(page, "hello").locator("> div")
        assert answer.locator("h3").inner_text() == "Title"
        assert answer.locator("strong").inner_text() == "bold"
        assert [item.inner_text() for item in answer.locator("li").all()] == ["one", "two"]
        assert answer.locator("pre").inner_text() == "<b>not bold</b>"
        assert answer.locator("a").get_attribute("href") == "https://example.com"
        assert answer.locator("img, b").count() == 0
        assert answer.locator("a").count() == 1
        assert page.title() == "sprat"


def test_stop_ends_an_answer(student, slow_models, open_page):
    with running_server({"m": student}) as running:
        page = open_page(running.address)
        page.fill("#question", "hello")
        page.click("#send")
        page.wait_for_function("() => document.querySelector('article.assistant')?.textContent.includes('aaa')")
        assert page.inner_text("#send") == "Stop"
        page.click("#send")
        page.wait_for_function(IS_IDLE)
        running.wait_until(lambda: running.engine().n_running == 0)
        assert page.locator("article.error").count() == 0


def test_the_key_is_asked_for(student, open_page):
    with running_server({"m": student}, api_key="secret") as running:
        page = open_page(running.address)
        page.wait_for_selector("#key", state="visible")
        page.fill("#key", "secret")
        page.press("#key", "Tab")
        page.wait_for_selector("#key", state="hidden")
        assert ask(page, "What is 17 plus 25?").locator("> div").inner_text() == "42"
