"""SECS with an encoder whose answers are known, and Resemblyzer against its package."""

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from bench import audio
from bench.audio import Waveform
from bench.cli.settings import load
from bench.errors import UserError
from bench.files import fingerprint
from bench.judges import Converted
from bench.judges.encoders.resemblyzer import PRETRAINED, PRETRAINED_SHA256, Encoder, Resemblyzer
from bench.judges.secs import SECS, Calibration, calibrate, operating_point
from bench.objects import build
from bench.trials import Utterance
from bench.weights.find import WeightsMissing

FOUR = {"533", "2609", "1998", "1688"}


@pytest.fixture(scope="module")
def encoder():
    return Resemblyzer()


@pytest.fixture(scope="module")
def judge(encoder):
    return SECS(encoder)


@pytest.fixture(scope="module")
def two_speakers(recordings):
    """Three recordings of one speaker and two of another."""
    a = [r for r in recordings if r.speaker == "533"][:3]
    b = [r for r in recordings if r.speaker == "2609"][:2]
    return [r.load() for r in a], [r.load() for r in b]


class Angles:
    """An encoder whose answers are known: a waveform's first sample is its angle in radians."""

    weights = ()
    fingerprint = "angles"

    def __init__(self):
        self.batches = []

    def embed(self, waveforms):
        self.batches.append([w.sha256 for w in waveforms])
        angles = np.array([float(w.samples[0]) for w in waveforms])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def at(angle):
    return Waveform(torch.tensor([angle, 0.1]), 16000)


@pytest.fixture
def known(tmp_path):
    """Recordings of three speakers, at the angles 0, 0.1; 1, 1.1; 2, 2.1."""
    utterances = []
    for n, angle in enumerate([0.0, 0.1, 1.0, 1.1, 2.0, 2.1]):
        path = tmp_path / f"{n}.wav"
        samples = np.array([angle, *[0.1] * 2000], dtype=np.float32)
        soundfile.write(path, samples, 16000, subtype="FLOAT")
        utterances.append(Utterance(str(n), f"speaker {n // 2}", "", path, "", sha256=str(n)))
    return utterances


# -- by hand -----------------------------------------------------------------------------------


def test_columns_by_hand(known):
    judge = SECS(Angles(), against=["enrolment", "reference"], calibration=known)
    item = Converted(
        "t",
        converted=at(0.0),
        reference=at(0.5),
        enrolment=(at(0.1), at(1.5)),
        source_enrolment=(at(1.0),),
    )
    [columns] = judge.score([item])
    same = np.cos(0.1)
    # pairs 0-1 and 1-2 lie 0.9, 1, 1, 1.1 apart, pair 0-2 1.9, 2, 2, 2.1
    different = np.mean(
        [np.cos(d) for d in (0.9, 1.0, 1.0, 1.1, 0.9, 1.0, 1.0, 1.1, 1.9, 2.0, 2.0, 2.1)]
    )
    secs = (np.cos(0.1) + np.cos(1.5)) / 2
    assert columns["secs"] == pytest.approx(secs, abs=1e-6)
    assert columns["secs_calibrated"] == pytest.approx(
        (secs - different) / (same - different), abs=1e-5
    )
    assert columns["sv_accept"] == 0.5  # 0.1 away is as near as one speaker's, 1.5 is not
    assert columns["secs_reference"] == pytest.approx(np.cos(0.5), abs=1e-6)
    assert columns["sv_accept_reference"] == 0.0
    assert columns["source_secs"] == pytest.approx(np.cos(1.0), abs=1e-6)
    assert columns["nearer_target"] == 0.0  # 0.53 to the target, 0.54 to the source
    assert set(judge.metrics) == set(columns)


def test_without_calibration_there_is_no_threshold():
    item = Converted("t", converted=at(0.0), enrolment=(at(0.1),))
    [columns] = SECS(Angles()).score([item])
    assert columns["sv_accept"] is None
    assert columns["secs_calibrated"] is None
    assert columns["source_secs"] is None
    assert columns["nearer_target"] is None


def test_the_calibrated_scale_is_the_same_for_a_stretched_and_shifted_judge():
    cosines = np.array([0.2, 0.5, 0.7])
    one = Calibration(
        same=0.8, different=0.3, threshold=0.5, eer=0, same_pairs=1, different_pairs=1
    )
    other = Calibration(
        same=0.8 * 0.3 + 0.6,
        different=0.3 * 0.3 + 0.6,
        threshold=0,
        eer=0,
        same_pairs=1,
        different_pairs=1,
    )
    for cosine in cosines:
        assert other.scale(0.3 * cosine + 0.6) == pytest.approx(one.scale(cosine))
    assert one.scale(0.8) == pytest.approx(1)
    assert one.scale(0.3) == pytest.approx(0)


def test_the_accept_rate_of_true_speakers_is_one_less_the_equal_error_rate():
    rng = np.random.default_rng(0)
    same, different = rng.normal(0.7, 0.1, 4000), rng.normal(0.4, 0.1, 4000)
    eer, threshold = operating_point(same, different)
    assert np.mean(same >= threshold) == pytest.approx(1 - eer, abs=1e-3)
    assert np.mean(different >= threshold) == pytest.approx(eer, abs=1e-3)
    assert eer == pytest.approx(0.0668, abs=0.01)  # the normal's tail beyond 1.5 deviations


def test_the_operating_point_by_hand():
    assert operating_point(np.array([0.8, 0.9]), np.array([0.1, 0.2])) == (0.0, 0.8)
    assert operating_point(np.array([0.1, 0.2]), np.array([0.8, 0.9]))[0] == 1.0
    same, different = np.array([0.4, 0.7, 0.8, 0.9]), np.array([0.1, 0.2, 0.3, 0.6])
    # threshold 0.6: one of four each way
    assert operating_point(same, different) == (0.25, 0.6)
    rng = np.random.default_rng(0)
    by_chance, _ = operating_point(rng.random(2000), rng.random(2000))
    assert by_chance == pytest.approx(0.5, abs=0.03)


def test_an_encoder_that_gives_no_numbers_has_no_operating_point(known):
    eer, _ = operating_point(np.array([np.nan, 1.0]), np.array([0.5]))
    assert np.isnan(eer)
    assert not eer <= 0.08


def test_calibration_needs_pairs_of_both_kinds():
    with pytest.raises(UserError, match="needs recordings; there are none"):
        SECS(Angles()).self_test([])
    with pytest.raises(UserError, match="2 recordings of 1 speakers"):
        calibrate(np.eye(2), ["a", "a"])
    with pytest.raises(UserError, match="2 recordings of 2 speakers"):
        calibrate(np.eye(2), ["a", "b"])


# -- each thing once ---------------------------------------------------------------------------


def test_each_sound_is_embedded_once_whoever_asks(known):
    encoder = Angles()
    judge = SECS(encoder, against=["enrolment", "reference"], calibration=known)
    enrolment, reference = (at(0.3), at(0.4)), at(0.5)
    items = [
        Converted(str(n), at(n / 10), reference=reference, enrolment=enrolment) for n in range(6)
    ]
    judge.score(items[:3])
    judge.score(items)
    embedded = [sound for batch in encoder.batches for sound in batch]
    # Six conversions, three of which sound like the enrolment or the reference; six known ones.
    assert len(embedded) == len(set(embedded)) == 6 + 6
    # What a call needs reaches the encoder together: three and what they are held against, the
    # known ones, and the one conversion of the second call that is a new sound.
    assert [len(batch) for batch in encoder.batches] == [6, 6]


def test_deaf_encoders_are_refused_when_they_score(known):
    by_chance = [
        Utterance(u.utterance_id, f"speaker {n % 3}", "", u.path, "") for n, u in enumerate(known)
    ]
    judge = SECS(Angles(), calibration=by_chance)
    with pytest.raises(UserError, match=r"errs on \d+% of known pairs \(at most 8%\)"):
        judge.score([Converted("t", converted=at(0.0), enrolment=(at(0.1),))])


# -- settings ----------------------------------------------------------------------------------


def test_what_it_reads_follows_what_it_holds_against():
    assert SECS(Angles()).reads == {"converted", "enrolment", "source_enrolment"}
    judge = SECS(Angles(), against=["reference"])
    assert judge.reads == {"converted", "reference", "source_enrolment"}
    assert judge.metrics[0] == "secs_reference"
    assert SECS.metrics_for({"against": ["reference"]}) == judge.metrics
    with pytest.raises(UserError, match=r"against=\['target'\]: name enrolment or reference"):
        SECS(Angles(), against=["target"])


def test_the_calibration_is_part_of_the_judges_identity(known):
    plain, calibrated = SECS(Angles()), SECS(Angles(), calibration=known)
    assert plain.fingerprint != calibrated.fingerprint
    assert SECS(Angles(), calibration=known, max_eer=0.5).fingerprint == calibrated.fingerprint
    assert SECS(Angles(), against=["reference"]).fingerprint != plain.fingerprint
    assert len(plain.fingerprint) == len(fingerprint("x"))


# -- Resemblyzer -------------------------------------------------------------------------------


def test_a_recording_is_wholly_like_itself(judge, two_speakers):
    (first, *_), _ = two_speakers
    [scores] = judge.score([Converted("t", converted=first, enrolment=(first,))])
    assert scores["secs"] == pytest.approx(1.0, abs=1e-6)


def test_the_same_speaker_is_nearer_than_another(judge, two_speakers):
    same, other = two_speakers
    item = Converted(
        "t", converted=same[0], enrolment=tuple(same[1:]), source_enrolment=tuple(other)
    )
    [scores] = judge.score([item])
    assert scores["secs"] > 0.8 > 0.65 > scores["source_secs"]
    assert scores["nearer_target"] == 1.0


def test_a_stereo_copy_scores_as_the_mono_file(judge, two_speakers, tmp_path):
    same, _ = two_speakers
    same[0].save(tmp_path / "mono.wav")
    steps, rate = soundfile.read(tmp_path / "mono.wav", dtype="int16")
    soundfile.write(tmp_path / "stereo.wav", np.stack([steps, steps], axis=1), rate)
    mono, stereo = (audio.load(tmp_path / f"{n}.wav") for n in ("mono", "stereo"))
    scores = judge.score(
        [Converted("t", converted=w, enrolment=(same[1],)) for w in (mono, stereo)]
    )
    assert scores[0] == scores[1]


@pytest.fixture(scope="module")
def package():
    """The encoder of the package Resemblyzer, which only the tests need."""
    from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


def test_the_stored_weights_are_the_packages_bit_for_bit(package):
    stored = load_file(PRETRAINED)
    published = package.state_dict()
    assert stored.keys() == published.keys()
    assert all(torch.equal(stored[name], published[name]) for name in stored)


def test_embeddings_are_the_packages_whatever_the_batch(package, two_speakers):
    from resemblyzer import preprocess_wav

    same, other = two_speakers
    quiet = Waveform(0.001 * same[0].samples, same[0].sample_rate)
    paused = Waveform(
        torch.cat([same[0].samples, torch.zeros(9000), same[1].samples]), same[0].sample_rate
    )
    lengths = (1.0, 1.59, 1.61, 2.0, 2.9)  # around what decides how many windows there are
    clips = [*same, *other, quiet, paused, *(same[0].first(length) for length in lengths)]
    expected = np.stack([package.embed_utterance(preprocess_wav(c.numpy())) for c in clips])
    for batch_size, step in ((1, 1), (3, -1), (64, 1)):
        embeddings = Resemblyzer(batch_size=batch_size).embed(clips[::step])[::step]
        assert np.abs(embeddings - expected).max() < 1e-5


def test_sound_without_a_voice_still_has_an_embedding(judge, two_speakers):
    hiss = Waveform.from_numpy(1e-3 * np.random.default_rng(0).standard_normal(16000), 16000)
    [scores] = judge.score([Converted("t", converted=hiss, enrolment=(two_speakers[0][0],))])
    assert 0 <= scores["secs"] < 0.7


def test_it_separates_real_speakers(judge, recordings):
    test = judge.self_test([r for r in recordings if r.speaker in FOUR])
    assert test.passed
    assert set(test.findings) == {"same speaker", "different speakers", "equal-error rate"}


def test_a_wrong_preprocessing_that_still_separates_speakers_is_detected(encoder, recordings):
    class Slower:
        """Takes 16 kHz for 14.5 kHz."""

        weights, fingerprint = encoder.weights, "slower"

        def embed(self, waveforms):
            return encoder.embed([Waveform(w.samples, 14500) for w in waveforms])

    known = [r for r in recordings if r.speaker in FOUR]
    node = load(["judge=secs_resemblyzer"]).judge.secs_resemblyzer
    pair = build(node.known_pair, "known_pair")
    assert {pair.first, pair.second} <= {r.utterance_id for r in known}
    right = SECS(encoder, known_pair=pair).self_test(known)
    assert right.passed
    assert right.findings[f"{pair.first} and {pair.second}"] == "0.883 (known: 0.883 ± 0.005)"
    wrong = SECS(Slower(), known_pair=pair).self_test(known)
    assert not wrong.passed
    assert SECS(Slower()).self_test(known).passed  # the equal-error rate alone lets it through
    others = [r for r in known if r.utterance_id != pair.first]
    assert set(SECS(Slower(), known_pair=pair).self_test(others).findings) == {
        "same speaker",
        "different speakers",
        "equal-error rate",
    }


def test_random_weights_fail_the_self_test_and_refuse_to_score(recordings, tmp_path):
    """The defect behind microsoft/UniSpeech issue 47: a checkpoint that was never loaded."""
    torch.manual_seed(0)
    random = Encoder()
    for parameter in random.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"model_state": random.state_dict()}, tmp_path / "random.pt")
    known = [r for r in recordings if r.speaker in FOUR]
    judge = SECS(Resemblyzer(weights=str(tmp_path / "random.pt")), calibration=known)
    assert not judge.self_test(known).passed
    waveform = known[0].load()
    with pytest.raises(UserError, match=r"weights are wrong or were not loaded \(.*random\.pt\)"):
        judge.score([Converted("t", converted=waveform, enrolment=(waveform,))])


def test_other_weights_are_another_judge(encoder, tmp_path):
    (tmp_path / "other.pt").write_bytes(b"x")
    other = Resemblyzer(weights=str(tmp_path / "other.pt"))
    assert other.fingerprint != encoder.fingerprint


def test_missing_weights_name_the_path_and_the_way_out(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no file at .*gone\.pt; correct `weights`"):
        Resemblyzer(weights=str(tmp_path / "gone.pt"))
    monkeypatch.setattr(f"{Resemblyzer.__module__}.PRETRAINED", tmp_path / "gone.safetensors")
    with pytest.raises(WeightsMissing, match=r"gone\.safetensors\); install takin-vc-bench again"):
        Resemblyzer()


def test_a_damaged_installed_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "encoder.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(f"{Resemblyzer.__module__}.PRETRAINED", tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=f"not the published {PRETRAINED_SHA256[:12]}"):
        Resemblyzer()


def test_a_pretrained_file_of_the_package_is_read_and_another_models_refused(
    tmp_path, encoder, two_speakers
):
    scalar = torch.ones(1)  # of the training loss: the package stores two
    network = load_file(PRETRAINED)
    state = {"similarity_weight": scalar, "similarity_bias": scalar, **network}
    torch.save({"step": 1, "model_state": state}, tmp_path / "pretrained.pt")
    clip = two_speakers[0][:1]
    embeddings = Resemblyzer(weights=str(tmp_path / "pretrained.pt")).embed(clip)
    assert np.array_equal(embeddings, encoder.embed(clip))
    del network["linear.bias"]
    torch.save({"model_state": network}, tmp_path / "cut.pt")
    with pytest.raises(UserError, match=r"cut\.pt is not Resemblyzer.*linear\.bias is missing"):
        Resemblyzer(weights=str(tmp_path / "cut.pt")).embed(clip)
