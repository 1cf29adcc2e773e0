"""The site in a real browser: phone and desktop, with and without scripts, by axe's rules."""

import shutil

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium on PATH: apt-get install chromium"
)
ROWS = """[...document.querySelectorAll("#suite-1 .board")].map((table) =>
    [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.dataset.system))"""
OPEN = 'document.querySelectorAll("details").forEach((part) => { part.open = true; })'


@pytest.fixture(scope="module")
def browser(written):
    pytest.importorskip("playwright", reason="no Playwright: pip install playwright")
    from tests.support.browser import Chromium

    with Chromium() as browser:
        browser.open(written / "index.html")
        yield browser


def choose(browser, name, value):
    browser.page.select_option(f"select[name={name}]", value)


def test_the_page_asks_for_nothing_but_itself(browser, written):
    assert set(browser.requests) == {(written / "index.html").resolve().as_uri()}


def test_filters_leave_out_systems_judges_and_families(browser):
    everything = browser.run(ROWS)
    assert [len(rows) for rows in everything] == [4, 4, 4]
    choose(browser, "system", "world")
    assert browser.run(ROWS) == [["world"]] * 3
    assert browser.page.inner_text("#count") == "3 of 12 rows"
    choose(browser, "family", "intelligibility")
    heads = browser.page.locator("#suite-1 .board").first.locator("th[data-family]:visible")
    assert heads.count() == 1
    assert "WER" in heads.first.inner_text()
    assert browser.page.locator("#overview .part:visible").count() == 1
    assert browser.page.locator(".trend:visible").count() == 1
    browser.page.click("text=Show all")
    assert browser.page.inner_text("#count") == "12 of 12 rows"
    assert browser.run(ROWS) == everything


def test_a_board_is_sorted_by_a_column(browser):
    head = browser.page.locator("#suite-1 .board").first.locator("th[data-family=similarity]")
    sorts = []
    for _ in range(3):
        head.locator("button").click()
        sorts.append((head.get_attribute("aria-sort"), browser.run(ROWS)[0]))
    assert sorts == [
        ("descending", ["target", "takin_vc", "world", "source"]),
        ("ascending", ["source", "world", "takin_vc", "target"]),
        (None, ["source", "takin_vc", "world", "target"]),
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_pages_fit_and_keep_axes_rules(browser, written, width, scheme):
    """axe-core: contrast, names, landmarks, headers of tables."""
    pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    browser.size(width, scheme=scheme)
    for path in (written / "index.html", written / "runs" / "v2" / "index.html"):
        browser.open(path)
        assert browser.run("document.documentElement.scrollWidth") == width
        browser.run(OPEN)
        assert browser.violations() == []


def test_the_players_of_a_run_decode(browser, written):
    browser.open(written / "index.html")
    browser.page.click("#suite-1 a.run")
    assert browser.page.title() == "v3 – voice conversion run"
    durations = browser.run("""Promise.all([...document.querySelectorAll("audio")].map((player) =>
        new Promise((resolve, reject) => {
          player.addEventListener("loadeddata", () => resolve(player.duration));
          player.addEventListener("error", () => reject(player.error.message));
          player.preload = "auto";
          player.load();
        })))""")
    assert len(durations) == 5  # source, reference, two systems, target
    assert min(durations) > 0.9
    sizes = browser.run(
        "Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(sizes) == 5
    assert min(sizes) > 0
    assert browser.messages == []


def test_everything_can_be_read_without_scripts(browser, written):
    """After `browser`, which starts Playwright; a context of its own without scripts."""
    context = browser.page.context.browser.new_context(
        java_script_enabled=False, viewport={"width": 390, "height": 800}
    )
    page = context.new_page()
    page.goto((written / "index.html").resolve().as_uri())
    assert not page.locator("#filters").is_visible()
    assert page.locator("#suite-1 .board tbody tr:visible").count() == 12
    assert page.locator("#suite-1 .alarm:visible").count() == 3  # three tables, two reasons
    page.locator(".trend summary").nth(1).click()  # details open without scripts
    assert page.locator(".trend").nth(1).locator("svg:visible").count() > 0
    assert page.locator(".trend").nth(1).locator("tbody code").first.inner_text() == "c3" * 6
    page.click("#suite-1 a.run")
    assert page.locator("audio:visible").count() >= 5
    context.close()
