"""report.html is complete, runs no foreign code and uses no network."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
import soundfile

from reports.html.page import HtmlReport
from tests.support.made_up import failing, make_results

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.text = ""
        self.hidden = False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden:
            self.text += " ".join(data.split()) + " "

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def parsed(page):
    return Page(page.read_text(encoding="utf-8"))


def test_predictors_of_naturalness_are_explained_below_each_table(parsed):
    sentence = "predictors tell artefacts from clean speech and hardly order two clean systems"
    assert parsed.text.count(sentence) == 2  # suites


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A page of a run in which every name, error and transcript is an attack."""
    folder = tmp_path_factory.mktemp("evil")
    run = make_results(folder, 4, suites=["mini_cross_gender"])
    trials = run.suites["mini_cross_gender"].trials
    run = failing(run, "world", "mini_cross_gender", trials[0].trial_id, f"Error: {EVIL}")
    scores = run.scores.assign(system=run.scores["system"].replace("world", EVIL))
    transcribed = scores["wer_whisper_base.hypothesis"].notna()
    scores.loc[transcribed, "wer_whisper_base.hypothesis"] += f" {EVIL}"
    summary = run.summary.assign(system=run.summary["system"].replace("world", EVIL))
    summary.loc[summary["note"].str.startswith("UTMOS"), "note"] = f"no weights: {EVIL}"
    run = dataclasses.replace(
        run,
        name=EVIL,
        scores=scores,
        summary=summary,
        facts={
            "commit": EVIL,
            EVIL: [{EVIL: EVIL}],
            "created": EVIL,
            "suites": {"mini_cross_gender": {EVIL: EVIL}},
            "anchors": dict(run.anchors),
        },
    )
    return HtmlReport(embed_trials=1).render(run).read_text(encoding="utf-8")


def test_nothing_is_asked_of_the_network(page, parsed):
    for _, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            value = attributes.get(name) or ""
            assert re.match(r"(data:|#|\./|$)", value), value
        assert "url(" not in (attributes.get("style") or "")
    html = page.read_text(encoding="utf-8")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_forbids_the_network_to_itself(parsed):
    policy = next(m["content"] for m in parsed.all("meta") if "http-equiv" in m)
    # Sounds may also come from the file's folder; 'self' and file: allow no other source.
    assert policy.startswith("default-src 'none'; img-src data:; media-src data: 'self' file:;")
    assert "http" not in policy


def test_a_failed_trial_is_visible_with_its_error(parsed, failed):
    trial = failed.suites["mini_cross_gender"].trials[0].trial_id
    assert "failed: RuntimeError: out of memory" in parsed.text  # on its card
    assert f"world mini_cross_gender RuntimeError: out of memory 1: {trial}" in " ".join(
        parsed.text.split()
    )
    assert "Conversions that failed: world: 1 of 16." in parsed.text


def test_floor_and_ceiling_are_marked(parsed):
    text = " ".join(parsed.text.split())
    assert "source floor 8 0" in text
    assert "target ceiling 8 0" in text
    assert "world 7/8 1" in text


def test_arrows_judges_and_dashes_are_there(parsed):
    text = " ".join(parsed.text.replace("\u00a0", " ").split())
    for word in ("SECS ↑", "WER ↓ %", "secs_resemblyzer", "no weights", "–"):
        assert word in text
    assert "nan" not in re.findall(r"\w+", parsed.text.lower())


def test_players_decode_to_the_audio_of_their_trial(parsed, failed):
    lengths = {}
    for player in parsed.all("audio"):
        what, trial_id = player["aria-label"].split(" of ")
        data = base64.b64decode(player["src"].removeprefix("data:audio/mpeg;base64,"))
        samples, rate = soundfile.read(io.BytesIO(data))
        lengths[what, trial_id] = len(samples) / rate
    trials = {t.trial_id: t for suite in failed.suites.values() for t in suite.trials}
    assert len(lengths) == 2 * 2 * 4  # suites, trials, source + reference + world + target
    for (what, trial_id), seconds in lengths.items():
        trial = trials[trial_id]
        loads = {
            "source": trial.source.load,
            "reference": trial.reference,
            "world": trial.source.load,
            "target": trial.target.load,
        }
        cut = 0.05 if what == "world" else 0  # the made-up system loses its last 50 ms
        assert seconds == pytest.approx(loads[what]().seconds - cut, abs=0.001)


def test_every_player_has_its_spectrogram(parsed):
    pictures = [i for i in parsed.all("img") if i.get("class") == "spectrogram"]
    assert len(pictures) == len(parsed.all("audio"))
    for picture in pictures:
        assert picture["src"].startswith("data:image/png;base64,")
        assert picture["alt"].startswith("Spectrogram of ")


def test_trials_without_sound_link_to_files_that_exist(parsed, page):
    links = [a["href"] for a in parsed.all("a") if a["href"].startswith("./")]
    # suites, silent trials, systems and the reference; one failed
    assert len(links) == 2 * (8 - 2) * (3 + 1) - 1
    assert all((page.parent / link).is_file() for link in links)


def test_word_errors_are_marked_without_colour_alone(page):
    html = page.read_text(encoding="utf-8")
    assert re.search(r"<del>\w+</del><ins>banana</ins>", html)


def test_every_trial_is_listed(parsed, failed):
    for suite in failed.suites.values():
        for trial in suite.trials:
            assert trial.trial_id in parsed.text


def test_metrics_and_provenance_are_explained(parsed):
    assert "word errors over words of all trials together" in parsed.text
    for fact in (
        "0123456789abcdef0123456789abcdef01234567",
        "2.11.0",
        "Apache-2.0",
        "39373b86598f",
    ):
        assert fact in parsed.text


def test_text_of_others_is_inert(evil):
    page = Page(evil)
    scripts = page.all("script")
    assert len(scripts) == 1  # the page's script
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert not any(i.get("src") == "x" for i in page.all("img"))
    assert EVIL in page.text.replace("\u00a0", " ")  # shown as it is: escaped once, not rendered
    assert "49" not in page.text.split("Provenance")[-1]


def test_the_script_is_the_one_the_policy_allows(page):
    import hashlib

    html = page.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", html, flags=re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"script-src &#39;sha256-{digest}&#39;" in html or f"script-src 'sha256-{digest}'" in html
    )


def test_figures_are_also_files_in_the_reports_folder(page):
    names = {path.name for path in (page.parent / "figures").iterdir()}
    assert "length-secs_resemblyzer-mini_reference_length.svg" in names


def test_a_report_needs_no_provenance_and_no_recordings(tmp_path):
    run = make_results(tmp_path, 2, suites=["mini_cross_gender"])
    scores = run.scores[run.scores["system"] == "world"]
    summary = run.summary[run.summary["system"] == "world"]
    facts = {"anchors": {}, "suites": {}}
    bare = dataclasses.replace(run, scores=scores, summary=summary, facts=facts)
    text = Page(HtmlReport(embed_trials=0).render(bare).read_text(encoding="utf-8")).text
    assert "world was given 2 trials" in text


def test_sounds_keep_to_their_limit(failed, tmp_path):
    (tmp_path / "wav").symlink_to(failed.folder / "wav")
    suites = {"mini_cross_gender": failed.suites["mini_cross_gender"]}
    limited = dataclasses.replace(failed, folder=tmp_path, suites=suites)
    path = HtmlReport(embed_trials=8, max_audio_megabytes=0.5).render(limited)
    html = path.read_text(encoding="utf-8")
    sounds = [len(a) for a in re.findall(r'src="(data:audio[^"]*|data:image/png[^"]*)"', html)]
    assert 0 < len(sounds) < 2 * 8 * 4
    assert sum(sounds) <= 0.5e6
