"""Mel front ends against closed forms, librosa, torchaudio and NVIDIA's BigVGAN."""

import math
import os
import sys
from pathlib import Path

import librosa
import pytest
import torch
import torchaudio
from torch import Tensor

from takin_vc.mel import KaldiFbank, LogMel, frame_mask, slaney_filters


def noise_and_tones(sample_rate: int, seconds: float = 2.0) -> Tensor:
    """Noise, a tone in noise, and a sweep in noise, (3, T)."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(int(seconds * sample_rate)) / sample_rate
    noise = torch.randn(3, len(t), generator=generator)
    tone = torch.sin(2 * math.pi * 440 * t)
    sweep = torch.sin(2 * math.pi * (100 + 2000 * t) * t)
    return torch.stack(
        [0.1 * noise[0], 0.5 * tone + 0.01 * noise[1], 0.5 * sweep + 0.01 * noise[2]]
    )


@pytest.fixture
def bigvgan_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """NVIDIA's repository, importable; where to find it is the caller's business."""
    folder = os.environ.get("BIGVGAN_DIR")
    if not folder:
        pytest.skip("set BIGVGAN_DIR to a copy of NVIDIA/BigVGAN to compare with it")
    monkeypatch.syspath_prepend(folder)
    for module in ("env", "utils", "meldataset"):
        sys.modules.pop(module, None)
    return Path(folder)


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "f_min", "f_max"),
    [
        (24000, 1024, 100, 0.0, 12000.0),
        (22050, 1024, 80, 0.0, 8000.0),
        (16000, 512, 80, 50.0, 7600.0),
    ],
)
def test_mel_filters_are_librosas(sample_rate, n_fft, n_mels, f_min, f_max):
    ours = slaney_filters(sample_rate, n_fft, n_mels, f_min, f_max)
    other = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max)
    torch.testing.assert_close(
        torch.from_numpy(ours), torch.from_numpy(other), atol=1e-8, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("sample_rate", "n_mels", "f_max"), [(24000, 100, None), (22050, 80, 8000.0)]
)
def test_log_mel_is_bigvgans(bigvgan_folder, sample_rate, n_mels, f_max):
    from meldataset import mel_spectrogram

    waveform = noise_and_tones(sample_rate)
    other = mel_spectrogram(waveform, 1024, n_mels, sample_rate, 256, 1024, 0, f_max)
    ours = LogMel(sample_rate=sample_rate, n_mels=n_mels, f_max=f_max)(waveform)
    difference = float((ours - other).abs().max())
    print(f"LogMel {sample_rate} Hz, {n_mels} bands: largest difference {difference:.1e}")
    assert difference <= 1e-5


def test_kaldi_fbank_is_torchaudios():
    waveform = noise_and_tones(16000)
    other = torch.stack(
        [torchaudio.compliance.kaldi.fbank(w[None], num_mel_bins=80, dither=0.0) for w in waveform]
    )
    difference = float((KaldiFbank()(waveform) - other).abs().max())
    print(f"KaldiFbank: largest difference {difference:.1e}")
    assert difference <= 1e-3


def test_a_tone_peaks_in_the_band_around_its_frequency():
    mel = LogMel(sample_rate=16000, n_fft=1024, hop_length=160, n_mels=80)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)[None]
    centres = librosa.mel_frequencies(82, fmin=0, fmax=8000)[1:-1]
    band = int(mel(tone).mean(2).argmax())
    assert abs(centres[band] - 1000) < 60  # bands are about 50 Hz apart there


@pytest.mark.parametrize("samples", [385, 512, 24000, 24001, 24255, 24256])
def test_log_mel_has_one_frame_a_hop(samples):
    mel = LogMel()
    assert mel(torch.zeros(1, samples)).shape == (1, 100, samples // 256)
    assert mel.frames(torch.tensor([samples])).tolist() == [samples // 256]


def test_digital_silence_is_the_log_floor_in_every_band():
    mel = LogMel()
    assert mel.silence == pytest.approx(-11.5129, abs=1e-4)
    assert torch.all(mel(torch.zeros(1, 4096)) == mel.silence)


@pytest.mark.parametrize("front_end", ["log_mel", "fbank"])
def test_padding_never_changes_a_frame(front_end):
    waveform = noise_and_tones(16000)
    lengths = torch.tensor([32000, 20017, 4001])
    padded = waveform.masked_fill(
        ~frame_mask(lengths, 32000), 9.0
    )  # what lies beyond must not matter
    if front_end == "log_mel":
        log_mel = LogMel(sample_rate=16000, hop_length=160, n_mels=80)
        frames = log_mel.frames(lengths)
        batched = log_mel(padded, lengths).transpose(1, 2)
        single = [
            log_mel(w[None, :n]).transpose(1, 2)[0] for w, n in zip(waveform, lengths, strict=True)
        ]
        beyond = log_mel.silence
    else:
        fbank = KaldiFbank()
        frames = fbank.frames(lengths)
        batched = fbank(padded, lengths)
        single = [fbank(w[None, :n])[0] for w, n in zip(waveform, lengths, strict=True)]
        beyond = 0.0
    for row, alone, n in zip(batched, single, frames, strict=True):
        assert len(alone) == n
        torch.testing.assert_close(row[:n], alone, atol=1e-5, rtol=0)
        assert torch.all(row[n:] == beyond)


def test_mels_stay_float32_under_autocast():
    waveform = noise_and_tones(16000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = LogMel(sample_rate=16000)(waveform), KaldiFbank()(waveform)
    torch.testing.assert_close(inside[0], LogMel(sample_rate=16000)(waveform))
    torch.testing.assert_close(inside[1], KaldiFbank()(waveform))


def test_errors_name_the_values():
    with pytest.raises(ValueError, match=r"more than 384 samples \(16 ms\), not 384"):
        LogMel()(torch.zeros(1, 384))
    with pytest.raises(ValueError, match=r"at least 400 samples \(25 ms\), not 399"):
        KaldiFbank()(torch.zeros(1, 399))
    with pytest.raises(ValueError, match=r"win_length \(2048\) must be at most n_fft \(1024\)"):
        LogMel(win_length=2048)
    with pytest.raises(
        ValueError, match=r"f_max \(9000.0 Hz\) must be at most half .*\(16000 Hz\)"
    ):
        LogMel(sample_rate=16000, f_max=9000.0)
