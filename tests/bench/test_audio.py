"""Waveforms and audio files: reading, writing, resampling, and unusable files."""

import struct

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


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 192000])
def test_a_cut_to_the_shortest_length_is_no_fault(rate):
    speech = Waveform.from_numpy(sine(0.5, rate), rate)
    assert speech.first(audio.SHORTEST_SECONDS).fault() is None
    assert speech.first(audio.SHORTEST_SECONDS - 0.001).fault().startswith("too short")
    assert speech.first(1e308).seconds == speech.seconds


@pytest.mark.parametrize("rate", [1, 50, 3999, 384_001, 10**9])
def test_a_rate_that_is_no_audios_is_a_fault(rate):
    fault = Waveform.from_numpy(sine(1.0), rate).fault()
    assert fault == f"sampled at {rate} Hz, which is not from 4000 to 384000 Hz"


@pytest.mark.parametrize(("rate", "to"), [(1, 16000), (50, 16000), (16000, 10**9), (4000, 384_001)])
def test_resampling_never_makes_hours_of_a_second(rate, to):
    with pytest.raises(ValueError, match=f"cannot be resampled from {rate} Hz to {to} Hz"):
        Waveform.from_numpy(sine(1.0), rate).resample(to)


@pytest.mark.parametrize("rate", [4000, 8000, 384_000])
def test_rates_of_telephones_and_studios_are_none(rate, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(0.2, rate), rate)
    assert audio.load(path).resample(16000).seconds == pytest.approx(0.2, abs=1e-3)


def test_a_copy_has_copied_samples_and_the_known_hash():
    original = Waveform.from_numpy(sine(), 22050)
    unhashed = original.copy()
    assert "sha256" not in vars(unhashed)
    before = original.sha256
    copy = original.copy()
    assert vars(copy)["sha256"] == before
    assert copy.sample_rate == 22050
    for samples in (copy.samples, unhashed.numpy()):
        samples[:] = 0.25
    assert original.numpy().tobytes() == Waveform.from_numpy(sine(), 22050).numpy().tobytes()
    assert unhashed.sha256 != before


def test_a_waveform_is_mono_float32():
    with pytest.raises(ValueError, match=r"float64 of shape \(2, 8\)"):
        Waveform(torch.zeros(2, 8, dtype=torch.float64), 16000)
    with pytest.raises(ValueError, match="sample_rate must be positive, not 0"):
        Waveform(torch.zeros(8), 0)


def forge(path, seconds=1.0, **header):
    """A sound with a wrong header."""
    soundfile.write(path, sine(seconds), 16000)
    data = bytearray(path.read_bytes())
    if path.suffix == ".flac":  # the 36 bits of the number of samples in STREAMINFO
        data[21] = data[21] & 0xF0 | header["frames"] >> 32
        data[22:26] = struct.pack(">I", header["frames"] & 0xFFFFFFFF)
    else:
        data[24:28] = struct.pack("<I", header["rate"])
    path.write_bytes(data)


def write_bad(kind, path):
    if kind == "missing":
        return "no such file"
    if kind == "zero bytes":
        path.write_bytes(b"")
        return "an empty file (0 bytes)"
    if kind == "not audio":
        path.write_text("This is a letter, not a sound. " * 40)
        return "not readable as audio"
    if kind == "no header":
        path.write_bytes(bytes(range(256)))
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
    if kind.endswith("Hz"):
        forge(path, rate=int(kind.removesuffix(" Hz")))
        return f"sampled at {kind}"
    if kind.endswith("samples"):
        frames = 1 << int(kind.split()[0].removeprefix("2^"))
        forge(path, frames=frames)
        path.write_bytes(path.read_bytes()[:1024])
        return f"damaged: its header promises {frames} samples in 1024 bytes"
    soundfile.write(path, sine(1.0), 16000)
    path.write_bytes(path.read_bytes()[:9000])
    return "truncated"


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "zero bytes", "not audio", "no header", "no samples", "silent", "nan"),
        *("truncated", "1 Hz", "50 Hz", "2147483647 Hz", "2^31 samples", "2^35 samples"),
    ],
)
def test_bad_audio_is_one_line_that_names_file_and_fault(kind, tmp_path, monkeypatch):
    ending = {"no header": "raw", "2^31 samples": "flac", "2^35 samples": "flac"}.get(kind, "wav")
    path = tmp_path / f"bad.{ending}"
    fault = write_bad(kind, path)
    if "Hz" in kind or "2^" in kind:  # known from the header
        monkeypatch.delattr(soundfile.SoundFile, "read")
    with pytest.raises(AudioError) as caught:
        audio.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {caught.value.fault}")
    assert fault in caught.value.fault
    assert ";" not in caught.value.fault  # what to do about it hangs on where the file is
    assert "\n" not in message


def test_an_audio_error_without_a_fault_has_its_message_as_fault():
    assert AudioError("a.wav: gone").fault == "a.wav: gone"


@pytest.mark.parametrize("ending", ["mp3", "ogg", "opus"])
def test_a_truncated_file_of_a_lossy_format_is_refused(ending, tmp_path):
    whole, cut = (tmp_path / f"{name}.{ending}" for name in ("whole", "cut"))
    kind = {"mp3": ("MP3", None), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}[ending]
    soundfile.write(whole, sine(4.0), 16000, format=kind[0], subtype=kind[1])
    assert audio.load(whole).seconds == pytest.approx(4.0, abs=0.1)
    content = whole.read_bytes()
    cut.write_bytes(content[: 2 * len(content) // 3])
    with pytest.raises(AudioError, match="truncated"):
        audio.load(cut)


def test_a_truncated_flac_is_refused(recordings, tmp_path):
    path = tmp_path / "short.flac"
    path.write_bytes(recordings[0].path.read_bytes()[:-20000])
    with pytest.raises(AudioError, match=r"short\.flac"):
        audio.load(path)


@pytest.mark.parametrize(
    ("rate", "subtype", "warning"),
    [(8000, "PCM_16", "8000 Hz"), (16000, "PCM_U8", "8-bit"), (48000, "PCM_16", None)],
)
def test_formats_that_lower_scores_are_cautioned_of(rate, subtype, warning, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(rate=rate), rate, subtype=subtype)
    caution = audio.caution(path)
    if warning is None:
        assert caution is None
    else:
        assert warning in caution
        assert str(path) in caution


def test_samples_out_of_range_are_clipped_not_wrapped(tmp_path):
    Waveform.from_numpy(np.array([2.0, -2.0, 0.5]), 16000).save(tmp_path / "a.wav")
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [32767, -32768, 16384]
