"""report.html in a real browser: it loads alone, plays, sorts, filters and fits."""

import shutil

import pytest

from reports.html.page import HtmlReport
from tests.support.made_up import failing, make_results

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium on PATH: apt-get install chromium"
)

FIRST_CARDS = """[...document.querySelectorAll("#suite-1 details.card:not([hidden]) .trial")]
    .map((e) => e.textContent)"""


@pytest.fixture(scope="module")
def browser(page):
    pytest.importorskip("playwright", reason="no Playwright: pip install playwright")
    from tests.support.browser import Chromium

    with Chromium() as browser:
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
    # Two embedded trials of two suites with four voices; and the failed trial, whose card is open
    # and plays the files in the report's folder: reference, source, target.
    assert len(durations) == 2 * 2 * 4 + 3
    assert min(durations) > 0.9  # the shortest reference is 1 s


def test_an_opened_card_plays_the_files_of_the_reports_folder(browser):
    state = browser.run("""(async () => {
        const card = [...document.querySelectorAll("details.card:not([open])")].at(-1);
        const links = card.querySelectorAll("a.file").length;
        const before = card.querySelectorAll("audio").length;
        card.open = true;
        await new Promise((resolve) => setTimeout(resolve, 50));
        const players = [...card.querySelectorAll("audio")];
        await Promise.all(players.map((player) => new Promise((resolve, reject) => {
          player.addEventListener("loadeddata", resolve);
          player.addEventListener("error", () => reject(player.error.message));
          player.preload = "auto";
          player.load();
        })));
        card.open = false;
        return [before, links, players.length, players[0].src.startsWith("file:")];
    })()""")
    assert state == [0, 4, 4, True]


SWITCH = """
    const card = document.querySelector("#suite-2 details.card[open]");
    const buttons = [...card.querySelectorAll(".switch button")];
    const players = [...card.querySelectorAll("audio")];
    const playing = (player) => new Promise((resolve) =>
      player.addEventListener("playing", resolve, { once: true }));
"""


def test_voices_are_switched_at_the_same_moment(browser):
    names, moment, pressed = browser.run(f"""(async () => {{ {SWITCH}
        const [source, , converted] = players;
        let started = playing(source);
        buttons[0].click();
        await started;
        source.currentTime = 0.5;
        started = playing(converted);
        buttons[2].click();
        await started;
        const state = [buttons.map((b) => b.textContent), converted.currentTime,
          buttons.map((b) => b.getAttribute("aria-pressed"))];
        converted.pause();
        return state;
    }})()""")
    assert [name[:2] for name in names] == ["1 ", "2 ", "3 ", "4 "]
    assert "source" in names[0]
    assert "world" in names[2]
    assert moment == pytest.approx(0.5, abs=0.25)
    assert pressed == ["false", "false", "true", "false"]


def test_the_reference_starts_at_its_beginning(browser):
    moment = browser.run(f"""(async () => {{ {SWITCH}
        let started = playing(players[0]);
        buttons[0].click();
        await started;
        players[0].currentTime = 0.6;
        started = playing(players[1]);
        buttons[1].click();
        await started;
        const moment = players[1].currentTime;
        players[1].pause();
        return moment;
    }})()""")
    assert moment < 0.3


def test_keys_switch_and_stop(browser):
    paused = browser.run(f"""(async () => {{ {SWITCH}
        const press = (key) => card.querySelector("summary").dispatchEvent(
          new KeyboardEvent("keydown", {{ key, bubbles: true }}));
        const started = playing(players[2]);
        press("3");
        await started;
        const during = players.map((p) => p.paused);
        press("0");
        return [during, players.map((p) => p.paused)];
    }})()""")
    assert paused == [[True, True, False, True], [True] * 4]


def test_tables_are_sorted_by_a_column(browser):
    def press():
        return browser.run("""(() => {
            const table = document.querySelector("#suite-1 table.numbers");
            const heads = [...table.tHead.rows[1].cells];
            const head = heads.find((c) => c.textContent.startsWith("SECS"));
            head.querySelector("button").click();
            return [head.getAttribute("aria-sort"),
              [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.split(" ")[0])];
        })()""")

    assert press() == ["descending", ["target", "world", "source"]]
    assert press() == ["ascending", ["source", "world", "target"]]
    assert press() == [None, ["source", "world", "target"]]


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


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with comparisons, flags and a failure."""
    names = {"world": "world", "a_second_system": "world", "copies": "source"}
    run = make_results(tmp_path_factory.mktemp("full"), 8, names, ["mini_cross_gender"])
    trial = run.suites["mini_cross_gender"].trials[0].trial_id
    run = failing(run, "world", "mini_cross_gender", trial, "RuntimeError: out of memory")
    return HtmlReport(embed_trials=1).render(run)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_the_report_keeps_axes_rules(browser, full, width, scheme):
    """axe-core: contrast, names, landmarks, headers of tables; everything unfolded."""
    pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    browser.size(width, scheme=scheme)
    before = browser.page.url
    browser.page.goto(full.resolve().as_uri())
    unfolded = browser.run("""[...document.querySelectorAll("details")].map((part) => {
        part.open = true; return part.className; }).length""")
    assert unfolded > 10
    for part in ("flags", "failures"):
        assert browser.page.locator(f"#{part}").count() == 1
    assert browser.page.locator("table.differences").count() >= 1
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.violations() == []
    browser.page.goto(before)


def test_the_console_stays_silent(browser):
    assert browser.messages == []


def test_the_policy_stops_what_would_reach_the_network(browser):
    """Also shows that messages of the browser are recorded: the test above can fail."""
    loaded = browser.run("""new Promise((resolve) => {
        const image = new Image();
        image.onload = () => resolve(true);
        image.onerror = () => resolve(false);
        image.src = "https://example.org/pixel.png";
    })""")
    assert not loaded
    assert any("Content Security Policy" in message for message in browser.messages)
