import numpy as np
import pytest
import soundfile
import torch

from bench import audio
from bench.audio import AudioError, Waveform, concatenate


def sine(seconds=0.5, rate=16000, hz=440.0):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def test_sixteen_bit_audio_survives_loading_and_saving_bit_for_bit(recordings, tmp_path):
    steps, rate = soundfile.read(recordings[0].path, dtype="int16")
    recordings[0].load().save(tmp_path / "copy.wav")
    again, again_rate = soundfile.read(tmp_path / "copy.wav", dtype="int16")
    assert rate == again_rate
    assert np.array_equal(steps, again)


def test_every_sixteen_bit_step_survives(tmp_path):
    steps = np.arange(-32768, 32768).astype(np.int16)
    soundfile.write(tmp_path / "ramp.wav", steps, 16000, subtype="PCM_16")
    audio.load(tmp_path / "ramp.wav").save(tmp_path / "copy.wav")
    assert np.array_equal(soundfile.read(tmp_path / "copy.wav", dtype="int16")[0], steps)


def test_stereo_of_two_equal_channels_is_the_mono_file(tmp_path):
    mono = sine()
    soundfile.write(tmp_path / "mono.wav", mono, 16000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([mono, mono], axis=1), 16000)
    assert audio.load(tmp_path / "mono.wav").sha256 == audio.load(tmp_path / "stereo.wav").sha256


def test_stereo_is_the_mean_of_its_channels_not_the_left_one(tmp_path):
    left, right = sine(hz=440), sine(hz=880)
    soundfile.write(
        tmp_path / "stereo.wav", np.stack([left, right], axis=1), 48000, subtype="FLOAT"
    )
    loaded = audio.load(tmp_path / "stereo.wav")
    assert loaded.sample_rate == 48000
    np.testing.assert_allclose(loaded.numpy(), (left + right) / 2, atol=1e-6)


def test_the_hash_is_of_the_sound_not_of_the_file(tmp_path):
    steps = (sine() * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", steps, 16000)
    soundfile.write(tmp_path / "b.flac", steps, 16000)
    soundfile.write(tmp_path / "c.wav", steps, 8000)
    a, b, c = (audio.load(tmp_path / n) for n in ("a.wav", "b.flac", "c.wav"))
    assert a.sha256 == b.sha256
    assert a.sha256 != c.sha256  # the same samples at another rate are another sound


def test_resampling_keeps_a_tone():
    tone = Waveform.from_numpy(sine(1.0, 48000), 48000).resample(16000)
    assert tone.sample_rate == 16000
    np.testing.assert_allclose(tone.numpy()[2000:-2000], sine(1.0, 16000)[2000:-2000], atol=1e-3)


def test_joining_and_cutting_add_up():
    a, b = Waveform.from_numpy(sine(0.5), 16000), Waveform.from_numpy(sine(0.25), 16000)
    assert concatenate([a, b]).seconds == 0.75
    assert concatenate([a, b]).first(0.6).seconds == pytest.approx(0.6)
    assert concatenate([a, b]).first(9).seconds == 0.75


def test_a_sample_rate_is_a_whole_number_of_any_kind():
    assert type(Waveform(torch.zeros(8), np.int64(16000)).sample_rate) is int
    with pytest.raises(TypeError, match="float"):
        Waveform(torch.zeros(8), 16000.0)


def test_too_little_to_judge_is_a_fault():
    assert Waveform(torch.ones(5), 48000).fault().startswith("too short")
    assert Waveform(torch.ones(2400), 48000).fault() is None


def test_a_waveform_is_mono_float32():
    with pytest.raises(ValueError, match=r"float64 of shape \(2, 8\)"):
        Waveform(torch.zeros(2, 8, dtype=torch.float64), 16000)
    with pytest.raises(ValueError, match="sample_rate must be positive, not 0"):
        Waveform(torch.zeros(8), 0)


def write_bad(kind, path):
    if kind == "missing":
        return "no such file"
    if kind == "zero bytes":
        path.write_bytes(b"")
        return "an empty file"
    if kind == "not audio":
        path.write_text("This is a letter, not a sound. " * 40)
        return "not readable as audio"
    if kind == "no samples":
        soundfile.write(path, np.zeros(0), 16000)
        return "empty: it has no samples"
    if kind == "silent":
        soundfile.write(path, np.zeros(16000), 16000)
        return "silent"
    if kind == "nan":
        soundfile.write(path, np.full(16000, np.nan), 16000, subtype="FLOAT")
        return "NaN"
    soundfile.write(path, sine(1.0), 16000)
    path.write_bytes(path.read_bytes()[:9000])
    return "truncated"


@pytest.mark.parametrize(
    "kind", ["missing", "zero bytes", "not audio", "no samples", "silent", "nan", "truncated"]
)
def test_bad_audio_is_one_line_that_names_file_and_fault(kind, tmp_path):
    path = tmp_path / "bad.wav"
    fault = write_bad(kind, path)
    with pytest.raises(AudioError) as caught:
        audio.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert fault in message
    assert "\n" not in message


def test_a_truncated_flac_is_refused(recordings, tmp_path):
    path = tmp_path / "short.flac"
    path.write_bytes(recordings[0].path.read_bytes()[:-20000])
    with pytest.raises(AudioError, match=r"short\.flac"):
        audio.load(path)


@pytest.mark.parametrize(
    ("rate", "subtype", "said"),
    [(8000, "PCM_16", "8000 Hz"), (16000, "PCM_U8", "8-bit"), (48000, "PCM_16", None)],
)
def test_formats_that_lower_scores_are_cautioned_of(rate, subtype, said, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(rate=rate), rate, subtype=subtype)
    caution = audio.caution(path)
    if said is None:
        assert caution is None
    else:
        assert said in caution
        assert str(path) in caution


def test_samples_out_of_range_are_clipped_not_wrapped(tmp_path):
    Waveform.from_numpy(np.array([2.0, -2.0, 0.5]), 16000).save(tmp_path / "a.wav")
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [32767, -32768, 16384]
