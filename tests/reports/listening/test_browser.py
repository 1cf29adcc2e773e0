"""The page in a real browser: taken to its CSV, with reload, double click, back button."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium on PATH: apt-get install chromium"
)
PLAY = "button:not(.main):not(:disabled)"
# Sounds end at once: their end is what the page waits for.
FAST = """
HTMLMediaElement.prototype.play = function () {
  setTimeout(() => this.dispatchEvent(new Event("ended")), 5);
  return Promise.resolve();
};
"""


# The page ignores a second click on a new screen for a while; tests put its clock forward.
CLOCK = """
const now = performance.now.bind(performance);
window.later = 0;
performance.now = () => now() + window.later;
"""


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("playwright", reason="no Playwright: pip install playwright")
    from tests.support.browser import Chromium

    with Chromium() as browser:
        yield browser


@pytest.fixture
def browser(chromium):
    chromium.fresh()
    chromium.page.set_default_timeout(8000)
    chromium.page.add_init_script(CLOCK)
    return chromium


def put_forward(browser):
    """Puts the page's clock 400 ms forward."""
    browser.run("window.later += 400")


def visit(browser, folder: Path, query: str) -> None:
    browser.page.goto((folder / "page" / "index.html").resolve().as_uri() + query)


def start(browser, folder, query="?PROLIFIC_PID=p1&group=1", fast=True):
    if fast:
        browser.page.add_init_script(FAST)
    visit(browser, folder, query)
    put_forward(browser)
    browser.page.click("button.main")
    headphones(browser)


def headphones(browser):
    """Answers the six rounds of the headphone check; its tones are skipped."""
    for _ in range(6):
        browser.page.wait_for_selector("fieldset[disabled] button")
        browser.run("document.querySelector('fieldset').disabled = false")
        put_forward(browser)
        browser.page.click("fieldset button >> nth=0")


def play_all(browser):
    for clip in browser.page.query_selector_all(".clip"):
        clip.query_selector("button").click()
        browser.page.wait_for_timeout(15)


def rate(browser, kind):
    if kind == "mushra":
        browser.run("""document.querySelectorAll("input[type=range]").forEach((input, i) => {
            input.value = 10 * i; input.dispatchEvent(new Event("input")); })""")
    else:
        browser.page.click("label.choice >> nth=0")


def forward(browser):
    put_forward(browser)
    browser.page.click("nav button.main")


def finish(browser, kind, count):
    for _ in range(count):
        play_all(browser)
        rate(browser, kind)
        forward(browser)
    with browser.page.expect_download() as download:
        browser.page.click("#save")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("kind", ["nmos", "smos", "ab", "abx", "cmos", "mushra"])
def test_a_test_is_taken_to_its_csv(browser, exported, kind):
    folder = exported(kind)
    test = json.loads((folder / "test.json").read_text())
    start(browser, folder)
    group = test["groups"][1]
    rows = finish(browser, kind, len(group))
    screens = {s["screen"]: s for s in test["screens"]}
    per_screen = len(screens[group[0]]["stimuli"]) if kind == "mushra" else 1
    assert list(dict.fromkeys(row["screen"] for row in rows)) == group
    assert len(rows) == len(group) * per_screen
    highest = str(test["scale"]["highest"])
    for row in rows:
        screen = screens[row["screen"]]
        assert row["test_id"] == test["test_id"]
        assert (row["listener"], row["group"]) == ("p1", "1")
        assert row["position"] == str(group.index(row["screen"]))
        assert row["stimulus"] in screen["stimuli"]
        assert row["played"] == "1"
        assert 0 < float(row["seconds"]) < 60
        assert 0 <= int(row["headphones"]) <= 6
        if kind in ("ab", "abx", "cmos"):
            assert [row["stimulus"], row["other"]] == screen["stimuli"]
        if kind == "mushra":
            assert row["rating"] == str(10 * int(row["place"]))
        else:
            assert row["rating"] == highest
    code = browser.page.inner_text("#code")
    assert len(code) == 8
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests)
    assert browser.messages == []


def test_nothing_is_lost_by_reload_double_click_or_back(browser, exported):
    folder = exported("nmos")
    test = json.loads((folder / "test.json").read_text())
    count = len(test["groups"][1])
    start(browser, folder)
    play_all(browser)
    browser.page.click("label.choice >> nth=2")
    browser.page.reload()  # in the middle of a screen: the plays and the rating are kept
    assert browser.run("document.querySelector('progress').value") == 0
    assert browser.run("document.querySelector('input:checked').value") == "3"
    assert browser.page.is_enabled("nav button.main")
    put_forward(browser)
    browser.page.dblclick("nav button.main")  # one screen forward, not two
    assert browser.run("document.querySelector('progress').value") == 1
    assert not browser.page.is_enabled("nav button.main")
    browser.run("history.back()")
    browser.page.wait_for_selector(".back")
    assert browser.run("document.querySelector('progress').value") == 1
    visit(browser, folder, "?PROLIFIC_PID=p1&group=5")  # left and opened again: the same group
    assert browser.run("document.querySelector('progress').value") == 1
    rows = finish(browser, "nmos", count - 1)
    assert [row["screen"] for row in rows] == test["groups"][1]
    assert rows[0]["rating"] == "3"
    assert {row["group"] for row in rows} == {"1"}
    browser.page.reload()  # a finished test stays finished
    assert browser.page.is_visible("#code")


def test_a_clip_must_be_played_before_it_is_rated(browser, exported):
    start(browser, exported("smos"))
    assert browser.page.is_disabled("input[type=radio] >> nth=0")
    browser.page.click(".clip button >> nth=0")
    browser.page.wait_for_timeout(50)
    assert browser.page.is_disabled("input[type=radio] >> nth=0")  # the reference alone
    browser.page.click(".clip button >> nth=1")
    browser.page.wait_for_timeout(50)
    assert browser.page.is_enabled("input[type=radio] >> nth=0")
    assert not browser.page.is_enabled("nav button.main")


def test_real_sounds_play_to_their_end(browser, exported):
    start(browser, exported("nmos"), fast=False)
    browser.page.click(".clip button")
    browser.page.wait_for_selector(".state:has-text('✓')", timeout=30000)
    assert browser.page.is_enabled("input[type=radio] >> nth=0")


def test_a_browser_that_refuses_to_play_says_so(browser, exported):
    browser.page.add_init_script("""HTMLMediaElement.prototype.play = () =>
        Promise.reject(new DOMException("not allowed", "NotAllowedError"))""")
    start(browser, exported("nmos"), fast=False)
    browser.page.click(".clip button")
    browser.page.wait_for_selector("[role=alert]")
    assert browser.page.is_disabled("input[type=radio] >> nth=0")


def test_a_browser_without_storage_is_told(browser, exported):
    browser.page.add_init_script("""Object.defineProperty(window, "localStorage",
        { get() { throw new DOMException("denied", "SecurityError"); } })""")
    start(browser, exported("nmos"), query="?participant=x")
    assert browser.page.is_visible(".clip")


def test_an_id_is_asked_for_and_cannot_inject(browser, exported):
    browser.page.add_init_script(FAST)
    visit(browser, exported("nmos"), "")
    assert browser.page.is_disabled("button.main")
    browser.page.fill("#participant", '=1+1,"<img src=x onerror=alert(1)>')
    put_forward(browser)
    browser.page.click("button.main")
    headphones(browser)
    count = len(json.loads((exported("nmos") / "test.json").read_text())["groups"][0])
    rows = finish(browser, "nmos", count)
    assert {row["listener"] for row in rows} == {"_1_1___img_src_x_onerror_alert_1__"}
    assert browser.messages == []


@pytest.mark.parametrize("width", [320, 1200])
@pytest.mark.parametrize("kind", ["smos", "cmos", "mushra"])
def test_the_page_fits_a_phone(browser, exported, kind, width, tmp_path):
    browser.size(width, 640)
    browser.page.add_init_script(FAST)
    visit(browser, exported(kind), "?PROLIFIC_PID=p1")
    assert browser.run("document.documentElement.scrollWidth") == width
    put_forward(browser)
    browser.page.click("button.main")
    headphones(browser)
    assert browser.run("document.documentElement.scrollWidth") == width
    small = browser.run("""[...document.querySelectorAll("button, label.choice")]
        .filter((e) => e.getBoundingClientRect().height < 44).length""")
    assert small == 0
    nameless = browser.run("""[...document.querySelectorAll("input")]
        .filter((e) => !(e.labels?.length || e.getAttribute("aria-label"))).length""")
    assert nameless == 0


def test_the_training_comes_first_and_is_marked(browser, exported):
    from bench.errors import UserError
    from reports.listening.ratings.exported import ExportedTest
    from reports.listening.ratings.readers import read_answers
    from reports.listening.ratings.table import checked

    folder = exported("nmos", training=3)
    public = json.loads((folder / "test.json").read_text())
    start(browser, folder)
    for number in range(3):
        assert browser.page.is_visible(".training")
        assert browser.run("document.querySelector('progress').max") == 3
        assert browser.run("document.querySelector('progress').value") == number
        assert browser.page.is_visible(f"text={public['notice']}")
        play_all(browser)
        rate(browser, "nmos")
        if number == 1:
            browser.page.reload()  # the training survives a reload too
        forward(browser)
    browser.page.reload()
    assert browser.page.is_visible("text=The training is over")
    forward(browser)
    assert not browser.page.is_visible(".training")
    group = public["groups"][1]
    rows = finish(browser, "nmos", len(group))
    assert [row["screen"] for row in rows] == [*public["training"], *group]
    assert [row["phase"] for row in rows] == ["training"] * 3 + ["test"] * len(group)

    path = folder / "answers.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    test = ExportedTest.load(folder)
    answers = checked(test, read_answers(test, path))
    assert list(answers.table["screen"]) == group
    assert "3 answers of the training are left out." in answers.notes
    path.write_text(path.read_text().replace(public["training"][0], group[0]))
    with pytest.raises(UserError, match="marked as training, but screen"):
        read_answers(test, path)
    path.unlink()
