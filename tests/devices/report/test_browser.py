"""The page in headless Chromium: no errors, no requests, no overflow, in light and dark and in three widths."""

import shutil

import pytest
from report_page import write_report

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCHEMES = [(width, scheme) for width in (1280, 390, 320) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    _, report = write_report(tmp_path_factory.mktemp("report"))
    return report


@pytest.fixture
def visit(browser, report):
    """Opens the page; after the test there must be no errors and no requests."""
    problems, pages = [], []

    def open_page(width, scheme):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        address = report.page.as_uri()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: request.url == address or problems.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert problems == []


@pytest.mark.parametrize(("width", "scheme"), SCHEMES)
def test_nothing_overflows_and_every_chart_is_visible(visit, report, width, scheme):
    page = visit(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.locator("svg.chart:visible")
    assert shown.count() == sum(figure.draw is not None for figure in report.figures)
    for index in range(shown.count()):
        box = shown.nth(index).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 50


@pytest.mark.parametrize(("width", "scheme"), SCHEMES)
def test_text_of_a_chart_stays_inside_it(visit, width, scheme):
    beyond = """() => [...document.querySelectorAll("svg.chart")].filter(svg => svg.checkVisibility()).flatMap(svg => {
        const edge = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter(text => {
            const box = text.getBoundingClientRect();
            return box.left < edge.left - 2 || box.right > edge.right + 2 || box.bottom > edge.bottom + 2;
        }).map(text => text.textContent);
    })"""
    assert visit(width, scheme).evaluate(beyond) == []


@pytest.mark.parametrize(("width", "size"), [(1280, 12), (390, 10)])
def test_text_of_a_chart_is_large_enough(visit, width, size):
    smallest = """() => Math.min(...[...document.querySelectorAll("svg.chart text")]
        .filter(text => text.checkVisibility()).map(text => parseFloat(getComputedStyle(text).fontSize)
            * text.ownerSVGElement.getBoundingClientRect().width / text.ownerSVGElement.viewBox.baseVal.width))"""
    assert visit(width, "light").evaluate(smallest) >= size


def test_colours_follow_the_colour_scheme(visit):
    colours = {
        scheme: visit(1280, scheme).evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('svg.chart .bar.measured')).fill]"
        )
        for scheme in ("light", "dark")
    }
    assert colours["light"] == ["rgb(255, 255, 255)", "rgb(10, 88, 168)"]
    assert colours["dark"] == ["rgb(20, 23, 27)", "rgb(106, 178, 255)"]


def test_the_data_table_opens_without_a_script_and_scrolls(visit):
    page = visit(390, "light")
    page.locator("summary").first.click()
    assert page.locator("table").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
