"""Lists of the protocols are balanced, over made-up corpora with known answers."""

import itertools
import json
import random
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from bench.cli.settings import FOLDER
from bench.errors import UserError
from bench.files import sha256_of
from bench.manifest import write_trials
from bench.trials import Trial, Utterance
from suites import protocols
from suites.build import LISTED, MANIFESTS, listed_suite
from suites.corpora.table import CorpusRecording
from suites.protocols import LENGTHS, PROTOCOLS


def corpus(women=7, men=5, each=40, languages=("en",), emotions=("",), seed=0):
    """Speakers F0, F1, … M0, …, with `each` recordings of 1 to 16 s in each emotion."""
    rng = random.Random(seed)
    names = [f"F{i}" for i in range(women)] + [f"M{i}" for i in range(men)]
    recordings = []
    for number, name in enumerate(names):
        language = languages[number % len(languages)]
        for emotion, i in itertools.product(emotions, range(each)):
            utterance_id = f"{name}-{emotion}{i:04d}"
            utterance = Utterance(
                utterance_id,
                name,
                name[0],
                Path(f"{utterance_id}.wav"),
                f"words {utterance_id}",
                corpus=f"C/{'train' if number % 2 else 'test'}",
            )
            seconds = round(rng.uniform(1, 16), 2)
            recordings.append(CorpusRecording(utterance, seconds, "", language, emotion))
    return recordings


EMOTIONS = ("angry", "happy", "neutral", "sad")
LISTED_SENTENCES = tuple(r.utterance.utterance_id for r in corpus() if r.seconds < 13)[::11]
CASES = {
    "cross_gender": (corpus(), {"trials": 400}),
    "unseen_speakers": (corpus(), {"trials": 300}),
    "reference_length": (corpus(), {"trials": 300}),
    "cross_lingual": (corpus(languages=("en", "zh")), {"trials": 400}),
    "expressive": (corpus(each=15, emotions=EMOTIONS), {"trials": 400}),
    "grid": (corpus(women=9, men=9), {"trials": 1200}),
    "listed": (corpus(), {"trials": 100, "sources": LISTED_SENTENCES}),
}
BUILT = {n: PROTOCOLS[n](c, seed=5, **settings) for n, (c, settings) in CASES.items()}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_as_many_trials_as_asked_for_and_each_with_a_different_id(name):
    trials = BUILT[name]
    assert len(trials) == CASES[name][1]["trials"]
    assert len({t.trial_id for t in trials}) == len(trials)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_nobody_is_source_and_target_and_no_recording_plays_two_parts(name):
    references, targets, enrolled, sources = set(), set(), set(), set()
    for t in BUILT[name]:
        assert t.source.speaker != t.speaker
        parts = [t.source, *t.references, *t.enrolment, *t.source_enrolment, t.target]
        assert len({u.utterance_id for u in parts}) == len(parts)
        assert {u.speaker for u in (*t.references, *t.enrolment, t.target)} == {t.speaker}
        assert {u.speaker for u in t.source_enrolment} == {t.source.speaker}
        references |= set(t.references)
        targets.add(t.target)
        enrolled |= set(t.enrolment)
        sources.add(t.source)
    assert not references & (enrolled | sources | targets)
    assert not targets & (enrolled | sources)


@pytest.mark.parametrize("name", ["cross_gender", "cross_lingual", "expressive"])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_cells_and_speakers_are_balanced_in_the_list_and_in_its_beginning(name, share):
    trials = BUILT[name][: int(len(BUILT[name]) * share)]
    factor = {
        "cross_gender": "gender_pair",
        "cross_lingual": "languages",
        "expressive": "emotion",
    }[name]
    cells = Counter(t.factors[factor] for t in trials)
    assert max(cells.values()) - min(cells.values()) <= 1
    for cell in cells:
        of_cell = [t for t in trials if t.factors[factor] == cell]
        for who in (lambda t: t.source.speaker, lambda t: t.speaker):
            counts = Counter(map(who, of_cell))
            # Nobody meets themselves: where the lists differ in length a turn may skip a pair.
            assert max(counts.values()) - min(counts.values()) <= 2


@pytest.mark.parametrize("name", ["cross_gender", "cross_lingual", "expressive"])
def test_source_durations_are_balanced_in_every_cell(name):
    factor = {"cross_gender": "gender_pair", "cross_lingual": "languages"}.get(name, "emotion")
    counts = defaultdict(Counter)
    for t in BUILT[name]:
        counts[t.factors[factor]][t.factors["source_length"]] += 1
    for cell in counts.values():
        assert set(cell) == {"short", "medium", "long"}
        assert max(cell.values()) - min(cell.values()) <= 0.12 * sum(cell.values())


def test_sources_are_of_usable_length_and_length_classes_are_thirds():
    recordings = {r.utterance.utterance_id: r.seconds for r in CASES["cross_gender"][0]}
    longest = {}
    for t in BUILT["cross_gender"]:
        seconds = recordings[t.source.utterance_id]
        assert 2 <= seconds <= 15
        longest.setdefault(t.factors["source_length"], []).append(seconds)
    assert max(longest["short"]) < min(longest["medium"]) < max(longest["medium"])
    assert max(longest["medium"]) <= min(longest["long"])


def test_the_reference_lasts_as_long_as_asked():
    recordings = {r.utterance.utterance_id: r.seconds for r in CASES["reference_length"][0]}
    for t in BUILT["reference_length"]:
        assert sum(recordings[u.utterance_id] for u in t.references) >= max(LENGTHS)


def test_along_a_sweep_only_the_length_varies():
    sweeps = [BUILT["reference_length"][i : i + 6] for i in range(0, 300, 6)]
    for trials in sweeps:
        assert [t.reference_seconds for t in trials] == list(LENGTHS) == [1, 2, 3, 5, 10, 20]
        assert len({(t.source, t.references, t.enrolment, t.target) for t in trials}) == 1


def test_source_and_reference_never_have_the_same_text():
    recordings = corpus(women=2, men=2, each=12)
    # All speakers read the same sentences; without a rule sources and references would meet.
    same = [
        CorpusRecording(
            Utterance(
                u.utterance_id, u.speaker, u.gender, u.path, f"Sentence {u.utterance_id[3:]}!"
            ),
            r.seconds,
            "",
        )
        for r in recordings
        for u in [r.utterance]
    ]
    for t in protocols.cross_gender(same, seed=0, trials=40):
        assert t.source.text not in {u.text for u in t.references}


def test_the_grid_is_100_sources_with_each_of_12_references():
    trials = BUILT["grid"]
    sources = {t.source.utterance_id for t in trials}
    targets = {t.speaker: t.references[0].gender for t in trials}
    assert (len(sources), len(targets)) == (100, 12)
    assert Counter(targets.values()) == {"F": 6, "M": 6}
    assert len({(t.source, t.references) for t in trials}) == 1200
    assert not {t.source.speaker for t in trials} & set(targets)


def test_unseen_speakers_are_all_source_and_target_equally_often():
    for who in (lambda t: t.source.speaker, lambda t: t.speaker):
        assert set(Counter(map(who, BUILT["unseen_speakers"])).values()) == {25}  # 300 over 12


def test_unseen_speakers_leaves_out_the_training_speakers_of_a_system():
    trials = protocols.unseen_speakers(
        corpus(), seed=1, trials=60, trained_on=frozenset({"C:F0", "C:M1"})
    )
    assert len({t.speaker for t in trials}) == 10
    assert not {"F0", "M1"} & {s for t in trials for s in (t.speaker, t.source.speaker)}


def test_strata_are_as_declared():
    training_speakers = {"F0", "F2", "M1", "M3"}
    trials = protocols.unseen_speakers(
        corpus(),
        seed=1,
        trials=80,
        trained_on=frozenset(f"C:{s}" for s in training_speakers),
        strata=True,
    )
    assert Counter(t.factors["seen"] for t in trials) == dict.fromkeys(
        ("s2s", "s2u", "u2s", "u2u"), 20
    )
    for t in trials:
        letters = ["s" if s in training_speakers else "u" for s in (t.source.speaker, t.speaker)]
        assert t.factors["seen"] == "2".join(letters)


def test_cross_lingual_has_every_pair_of_languages_and_the_control():
    recordings = {r.utterance.utterance_id: r.language for r in CASES["cross_lingual"][0]}
    cells = Counter()
    for t in BUILT["cross_lingual"]:
        pair = "2".join(recordings[u.utterance_id] for u in (t.source, t.references[0]))
        assert t.factors["languages"] == pair
        cells[pair] += 1
    assert cells == {"en2en": 100, "en2zh": 100, "zh2en": 100, "zh2zh": 100}


def test_expressive_references_are_neutral_and_the_same_for_all_emotions():
    recordings = {r.utterance.utterance_id: r.emotion for r in CASES["expressive"][0]}
    of_target = defaultdict(set)
    for t in BUILT["expressive"]:
        assert recordings[t.source.utterance_id] == t.factors["emotion"]
        assert {recordings[u.utterance_id] for u in (*t.references, *t.enrolment)} == {"neutral"}
        of_target[t.speaker].add((t.references, t.enrolment, t.target))
    assert all(len(dealt) == 1 for dealt in of_target.values())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_order_of_the_corpus_changes_nothing_and_the_seed_does(name):
    recordings, settings = CASES[name]
    shuffled = random.Random(9).sample(recordings, len(recordings))
    assert PROTOCOLS[name](shuffled, seed=5, **settings) == BUILT[name]
    assert PROTOCOLS[name](recordings, seed=6, **settings) != BUILT[name]


@pytest.mark.parametrize(
    ("name", "recordings", "settings", "message"),
    [
        ("cross_gender", corpus(men=0), {"trials": 4}, "7 women and 0 men"),
        (
            "cross_gender",
            corpus(),
            {"trials": 402},
            r"multiple of 4 \(the cells F2F, F2M, M2F, M2M\); take 404",
        ),
        ("cross_gender", corpus(each=4), {"trials": 4}, "none of 12 speakers"),
        ("unseen_speakers", corpus(women=1, men=0), {"trials": 4}, "of 1 speakers 0 are seen"),
        ("reference_length", corpus(), {"trials": 100}, r"multiple of 6 .* take 102"),
        ("cross_lingual", corpus(), {"trials": 4}, "enough recordings: en; two"),
        ("expressive", corpus(), {"trials": 4}, "emotions in the corpus: none"),
        (
            "expressive",
            CASES["expressive"][0],
            {"trials": 6},
            "multiple of 4 .*4 emotions in 1 languages",
        ),
        ("grid", corpus(women=9, men=9), {"trials": 6}, "take 12"),
        ("grid", corpus(), {"trials": 1200}, "7 women and 5 men"),
        ("grid", corpus(women=7, men=6), {"trials": 1200}, "has too few recordings for 100"),
    ],
)
def test_a_corpus_that_cannot_give_the_list_says_why(name, recordings, settings, message):
    with pytest.raises(UserError, match=message):
        PROTOCOLS[name](recordings, seed=0, **settings)


@cache
def listed(name):
    """The trials of a list, made once; not to be changed."""
    return listed_suite(name)


@pytest.mark.parametrize("name", LISTED)
def test_the_frozen_lists_are_what_the_seeds_give_byte_for_byte(name, tmp_path):
    trials = listed(name)
    assert len(trials) >= 1000
    write_trials(trials, tmp_path / "m.jsonl", Path())
    frozen = MANIFESTS / f"{name}.v1.jsonl"
    assert (tmp_path / "m.jsonl").read_bytes() == frozen.read_bytes()


@pytest.mark.parametrize("name", LISTED)
def test_the_first_24_trials_are_balanced(name):
    """`limit=24` is a small suite in which every speaker has an equal share."""
    trials = listed(name)[:24]
    sources = Counter(t.source.speaker for t in trials)
    targets = Counter(t.speaker for t in trials)
    pairs = Counter(f"{t.source.gender}2{t.references[0].gender}" for t in trials)
    if name.endswith("cross_gender"):
        assert pairs == dict.fromkeys(("F2F", "F2M", "M2F", "M2M"), 6)
        assert max(*sources.values(), *targets.values()) <= 2
    elif name.endswith("unseen_speakers"):
        assert len(sources) == len(targets) == 24
        assert set(pairs) == {"F2F", "F2M", "M2F", "M2M"}
    elif name.endswith("reference_length"):
        assert len(sources) == len(targets) == 4
        assert set(Counter(t.reference_seconds for t in trials).values()) == {4}
    else:
        assert pairs == dict.fromkeys(("F2F", "F2M", "M2F", "M2M"), 6)
        assert (len(sources), set(targets.values())) == (2, {2})


def test_the_frozen_librispeech_lists_cover_both_genders_and_all_40_speakers():
    trials: list[Trial] = listed("librispeech_cross_gender")
    assert len({t.speaker for t in trials}) == len({t.source.speaker for t in trials}) == 40
    for cell in ("F2F", "F2M", "M2F", "M2M"):
        of_cell = [t for t in trials if t.factors["gender_pair"] == cell]
        assert len(of_cell) == 260
        assert set(Counter(t.source.speaker for t in of_cell).values()) == {13}
        assert set(Counter(t.speaker for t in of_cell).values()) == {13}


def test_a_manifest_holds_every_recording_in_full_once():
    lines = (MANIFESTS / "vctk_cross_gender.v1.jsonl").read_text().splitlines()
    full, by_id = set(), 0
    for line in lines:
        record = json.loads(line)
        for part in [
            record["source"],
            record["target"],
            *record["references"],
            *record["enrolment"],
            *record["source_enrolment"],
        ]:
            if isinstance(part, str):
                assert part in full
                by_id += 1
            else:
                assert part["utterance_id"] not in full
                full.add(part["utterance_id"])
    assert by_id


def test_the_settings_hold_the_frozen_lists_hashes():
    for name in LISTED:
        settings = (FOLDER / "suite" / f"{name}.yaml").read_text()
        assert f"sha256: {sha256_of(MANIFESTS / f'{name}.v1.jsonl')}\n" in settings
