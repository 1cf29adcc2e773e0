"""Sounds and pictures, decoded again."""

import base64
import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from bench.audio import Waveform
from reports.html.clips import clip, mp3, spectrogram_png
from reports.spectrogram import RANGE_DB, ROWS


def tone(hertz, sample_rate, seconds=1.0):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return Waveform.from_numpy(0.5 * np.sin(2 * np.pi * hertz * time), sample_rate)


def pixels(waveform):
    """Grey levels, row 0 at the bottom: (ROWS, columns)."""
    image = Image.open(io.BytesIO(spectrogram_png(waveform)))
    return np.asarray(image.convert("L"))[::-1]


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 24000, 44100, 48000])
def test_an_mp3_lasts_as_long_as_its_waveform(sample_rate):
    samples, rate = soundfile.read(io.BytesIO(mp3(tone(440, sample_rate, 1.234))))
    assert rate == sample_rate
    assert len(samples) == round(1.234 * sample_rate)


def test_an_mp3_sounds_like_its_waveform():
    original = tone(440, 16000)
    samples, _ = soundfile.read(io.BytesIO(mp3(original)))
    assert np.corrcoef(samples, original.numpy())[0, 1] > 0.99


@pytest.mark.parametrize("sample_rate", [10000, 96000])
def test_a_rate_that_mp3_does_not_know_is_resampled(sample_rate):
    samples, rate = soundfile.read(io.BytesIO(mp3(tone(440, sample_rate))))
    assert rate == {10000: 11025, 96000: 48000}[sample_rate]
    assert len(samples) / rate == pytest.approx(1, abs=1e-3)


def test_a_clip_is_two_data_addresses():
    made = clip(tone(440, 16000))
    assert made.seconds == 1
    kinds = [a.split(";base64,") for a in (made.audio, made.spectrogram)]
    assert [kind for kind, _ in kinds] == ["data:audio/mpeg", "data:image/png"]
    soundfile.read(io.BytesIO(base64.b64decode(kinds[0][1])))
    assert made.size == len(made.audio) + len(made.spectrogram)


@pytest.mark.parametrize("sample_rate", [16000, 24000, 48000])
@pytest.mark.parametrize("hertz", [500, 1000, 4000])
def test_a_tone_is_darkest_at_its_mel_height_whatever_the_rate(hertz, sample_rate):
    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    row = mel(hertz) / mel(8000) * ROWS
    middle = pixels(tone(hertz, sample_rate))[:, 30]
    assert abs(middle.argmin() - row) <= 1.5


def test_a_column_is_16_ms():
    assert pixels(tone(440, 16000, 1.6)).shape[1] == pytest.approx(100, abs=1)


def test_above_half_the_sample_rate_there_is_nothing():
    grey = pixels(tone(440, 8000))
    assert (grey[-10:] == 255).all()  # 4 to 8 kHz is the upper quarter of the mel scale


def test_what_is_far_below_the_loudest_is_white():
    loud = tone(1000, 16000).numpy()
    quiet = loud * 10 ** (-(RANGE_DB + 10) / 20)
    grey = pixels(Waveform.from_numpy(np.concatenate([loud, quiet]), 16000))
    assert grey[:, 30].min() == 0
    assert (grey[:, -20:-5] == 255).all()
