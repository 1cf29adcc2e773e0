"""report.html in a real browser: it loads alone, plays, sorts, filters and fits."""

import shutil

import pytest

from tests.reports.chromium import Chromium

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium on PATH: apt-get install chromium"
)

FIRST_CARDS = """[...document.querySelectorAll("#suite-1 details.card:not([hidden]) .trial")]
    .map((e) => e.textContent)"""


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.size(1400)
        browser.open(page)
        yield browser


def test_the_report_asks_for_nothing_but_itself(browser, page):
    others = {url for url in browser.requests if not url.startswith("data:")}
    assert others == {page.resolve().as_uri()}


def test_every_picture_is_drawn(browser):
    sizes = browser.run(
        "Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(sizes) > 16
    assert min(sizes) > 0


def test_every_player_decodes(browser):
    durations = browser.run("""Promise.all([...document.querySelectorAll("audio")].map((player) =>
        new Promise((resolve, reject) => {
          player.addEventListener("loadeddata", () => resolve(player.duration));
          player.addEventListener("error", () => reject(player.error.message));
          player.preload = "auto";
          player.load();
        })))""")
    assert len(durations) == 2 * 2 * 4
    assert min(durations) > 0.9  # the shortest reference is 1 s


def test_only_one_player_plays(browser):
    playing = browser.run("""(async () => {
        const [a, b] = document.querySelectorAll("audio");
        await a.play();
        await b.play();
        const state = [a.paused, b.paused];
        b.pause();
        return state;
    })()""")
    assert playing == [True, False]


def test_a_click_on_a_spectrogram_plays_from_there(browser):
    share = browser.run("""(async () => {
        const image = document.querySelector("img.spectrogram");
        const player = image.closest(".what").querySelector("audio");
        const box = image.getBoundingClientRect();
        const started = new Promise((resolve) =>
          player.addEventListener("play", resolve, { once: true }));
        image.dispatchEvent(new MouseEvent("click", {
          bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + 5}));
        await started;
        player.pause();
        return player.currentTime / player.duration;
    })()""")
    assert share == pytest.approx(0.5, abs=0.1)


def test_trials_are_sorted_by_the_chosen_order(browser):
    def order_by(value):
        browser.run(f"""(() => {{
            const order = document.querySelector("#suite-1 .order");
            order.value = {value};
            order.dispatchEvent(new Event("change"));
        }})()""")
        return browser.run(FIRST_CARDS)

    given = order_by(0)
    by_id = order_by('[...document.querySelectorAll("#suite-1 .order option")].at(-1).value')
    assert by_id == sorted(given)
    assert given != by_id
    assert order_by(0) == given


def test_trials_are_filtered_by_words(browser):
    def show(words):
        browser.run(f"""(() => {{
            const filter = document.querySelector("#suite-1 .filter");
            filter.value = "{words}";
            filter.dispatchEvent(new Event("input"));
        }})()""")
        return browser.run(FIRST_CARDS)

    everything = show("")
    assert len(everything) == 8
    assert sorted(show("f2m-")) == sorted(t for t in everything if t.startswith("F2M"))
    assert browser.run('document.querySelector("#suite-1 .count").textContent') == "2 of 8 trials"
    assert show("no such words") == []
    assert show("") == everything


def test_the_keyboard_reaches_tables_cards_and_players(browser):
    unreachable = browser.run("""[...document.querySelectorAll(
        ".scroll, summary, audio, select, input, button, a[href]")]
        .filter((e) => e.tabIndex < 0).length""")
    assert unreachable == 0


def test_what_can_be_operated_has_a_name(browser):
    nameless = browser.run("""[...document.querySelectorAll("audio, select, input, img, .scroll")]
        .filter((e) => !(e.getAttribute("aria-label") || e.alt || e.labels?.length))
        .map((e) => e.outerHTML.slice(0, 80))""")
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_is_no_wider_than_the_window(browser, width, scheme):
    browser.size(width, scheme=scheme)
    assert browser.run("document.documentElement.scrollWidth") == width


def test_the_console_stays_silent(browser):
    assert browser.messages == []


def test_the_policy_stops_what_would_reach_the_network(browser):
    """Also shows that the browser's messages are heard here: the test above can fail."""
    loaded = browser.run("""new Promise((resolve) => {
        const image = new Image();
        image.onload = () => resolve(true);
        image.onerror = () => resolve(false);
        image.src = "https://example.org/pixel.png";
    })""")
    assert not loaded
    assert any("Content Security Policy" in message for message in browser.messages)
