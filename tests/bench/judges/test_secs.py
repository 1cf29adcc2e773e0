import numpy as np
import pytest
import soundfile
import torch

from bench import audio
from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.secs import ResemblyzerSECS, equal_error_rate
from bench.weights import WeightsMissing


@pytest.fixture(scope="module")
def judge():
    return ResemblyzerSECS()


@pytest.fixture(scope="module")
def two_speakers(recordings):
    """Three recordings of one speaker and two of another."""
    a = [r for r in recordings if r.speaker == "533"][:3]
    b = [r for r in recordings if r.speaker == "2609"][:2]
    return [r.load() for r in a], [r.load() for r in b]


def test_a_recording_is_wholly_like_itself(judge, two_speakers):
    (first, *_), _ = two_speakers
    [scores] = judge.score([Converted("t", converted=first, enrolment=(first,))])
    assert scores["secs"] == pytest.approx(1.0, abs=1e-6)
    assert scores["source_secs"] is None
    assert scores["nearer_target"] is None


def test_the_same_speaker_is_nearer_than_another(judge, two_speakers):
    own, other = two_speakers
    item = Converted("t", converted=own[0], enrolment=tuple(own[1:]), source_enrolment=tuple(other))
    [scores] = judge.score([item])
    assert scores["secs"] > 0.8 > 0.65 > scores["source_secs"]
    assert scores["nearer_target"] == 1.0


def test_secs_is_the_mean_cosine_over_the_enrolment(judge, two_speakers):
    own, other = two_speakers
    item = Converted("t", converted=own[0], enrolment=(own[1], other[0]))
    [scores] = judge.score([item])
    e = [judge.embed(w) for w in (own[0], own[1], other[0])]
    assert scores["secs"] == pytest.approx((e[0] @ e[1] + e[0] @ e[2]) / 2)


def test_a_stereo_copy_scores_as_the_mono_file(judge, two_speakers, tmp_path):
    own, _ = two_speakers
    own[0].save(tmp_path / "mono.wav")
    steps, rate = soundfile.read(tmp_path / "mono.wav", dtype="int16")
    soundfile.write(tmp_path / "stereo.wav", np.stack([steps, steps], axis=1), rate)
    mono, stereo = (audio.load(tmp_path / f"{n}.wav") for n in ("mono", "stereo"))
    scores = judge.score([Converted("t", converted=w, enrolment=(own[1],)) for w in (mono, stereo)])
    assert scores[0] == scores[1]


def test_the_batch_moves_no_score(judge, two_speakers):
    own, other = two_speakers
    items = [Converted("t", converted=w, enrolment=(own[1],)) for w in (*own, *other)]
    together = judge.score(items)
    fresh = ResemblyzerSECS()
    alone = [fresh.score([item])[0] for item in reversed(items)][::-1]
    assert together == alone


def test_sound_without_a_voice_still_has_an_embedding(judge, two_speakers):
    hiss = Waveform.from_numpy(1e-3 * np.random.default_rng(0).standard_normal(16000), 16000)
    [scores] = judge.score([Converted("t", converted=hiss, enrolment=(two_speakers[0][0],))])
    assert 0 <= scores["secs"] < 0.7


def test_it_knows_real_speakers_apart(judge, recordings):
    test = judge.self_test([r for r in recordings if r.speaker in {"533", "2609", "1998", "1688"}])
    assert test.passed
    assert set(test.findings) == {"same speaker", "different speakers", "equal-error rate"}


def test_random_weights_fail_the_self_test(recordings, tmp_path):
    """The defect behind microsoft/UniSpeech issue 47: a checkpoint that was never loaded."""
    from resemblyzer import VoiceEncoder

    torch.manual_seed(0)
    encoder = VoiceEncoder("cpu", verbose=False)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"model_state": encoder.state_dict()}, tmp_path / "random.pt")
    judge = ResemblyzerSECS(weights=str(tmp_path / "random.pt"))
    test = judge.self_test([r for r in recordings if r.speaker in {"533", "2609", "1998", "1688"}])
    assert not test.passed


def test_other_weights_are_another_judge(judge, tmp_path):
    (tmp_path / "other.pt").write_bytes(b"x")
    other = ResemblyzerSECS(weights=str(tmp_path / "other.pt"))
    assert other.fingerprint != judge.fingerprint


def test_missing_weights_name_the_place_and_the_way_out(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no file at .*gone\.pt; correct `weights`"):
        ResemblyzerSECS(weights=str(tmp_path / "gone.pt"))
    monkeypatch.setattr("bench.weights.package_folder", lambda name: tmp_path)
    with pytest.raises(WeightsMissing, match=r"pretrained\.pt\); install it: pip install Resem"):
        ResemblyzerSECS()


def test_a_damaged_package_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "pretrained.pt").write_bytes(b"damaged")
    monkeypatch.setattr("bench.weights.package_folder", lambda name: tmp_path)
    with pytest.raises(UserError, match="not the published 39373b86598f"):
        ResemblyzerSECS()


def test_equal_error_rate_by_hand():
    assert equal_error_rate(np.array([0.8, 0.9]), np.array([0.1, 0.2])) == 0.0
    assert equal_error_rate(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1.0
    same, different = np.array([0.4, 0.7, 0.8, 0.9]), np.array([0.1, 0.2, 0.3, 0.6])
    assert equal_error_rate(same, different) == 0.25  # threshold 0.6: one of four each way
    rng = np.random.default_rng(0)
    deaf = equal_error_rate(rng.random(2000), rng.random(2000))
    assert deaf == pytest.approx(0.5, abs=0.03)
