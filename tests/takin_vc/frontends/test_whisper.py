"""Whisper's encoder against openai-whisper's."""

import pytest
import torch
import whisper
from torch.nn import functional as F
from whisper.model import AudioEncoder

from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.tensors import MissingWeights, WeightsError
from tests.support.tiny_frontends import speech, whisper_encoder


@torch.no_grad()
def test_whisper_pads_to_30_seconds_as_openai_whisper_does():
    torch.manual_seed(0)
    encoder = AudioEncoder(n_mels=80, n_ctx=1500, n_state=32, n_head=4, n_layer=2).eval()
    waveform, lengths = speech((480000,))
    waveform[:, -400:] = 0  # Whisper reflects the end of its 30 s; in silence that changes nothing
    original_mel = whisper.log_mel_spectrogram(waveform)
    original = encoder(original_mel)
    front_end = WhisperEncoderFeatures(encoder)
    mel, _ = front_end.log_mel(waveform, lengths)
    ours, _ = front_end(waveform, lengths)
    print(
        f"Whisper: largest difference {float((mel - original_mel).abs().max()):.1e} in log mel, "
        f"{float((ours - original).abs().max()):.1e} after the encoder"
    )
    torch.testing.assert_close(mel, original_mel, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, original, atol=1e-5, rtol=0)


@torch.no_grad()
def test_whispers_log_mel_of_short_speech_is_that_of_the_padded_clip():
    waveform, lengths = speech((16000,))
    padded = whisper.log_mel_spectrogram(whisper.pad_or_trim(waveform))
    mel, mask = whisper_encoder().log_mel(waveform, lengths)
    assert mask.sum() == 100
    torch.testing.assert_close(mel, padded[..., :100], atol=1e-5, rtol=0)


@torch.no_grad()
def test_whisper_gives_the_asked_layer_and_drops_the_rest():
    front_end = whisper_encoder(layer=2)
    assert len(front_end.encoder.blocks) == 2
    waveform, lengths = speech((16000,))
    mel, _ = front_end.log_mel(waveform, lengths)
    encoder = front_end.encoder
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
    x = x + encoder.positional_embedding[:50]
    for block in encoder.blocks:
        x = block(x)
    torch.testing.assert_close(front_end(waveform, lengths)[0], x)


@torch.no_grad()
def test_normalised_whisper_frames_have_mean_0_and_variance_1():
    features, mask = whisper_encoder(normalize=True)(*speech())
    for row in range(len(features)):
        frames = features[row][mask[row]]
        torch.testing.assert_close(frames.mean(0), torch.zeros(32), atol=1e-5, rtol=0)
        torch.testing.assert_close(frames.var(0, unbiased=False), torch.ones(32), atol=1e-3, rtol=0)


@torch.no_grad()
def test_openais_whisper_files_are_read(tmp_path):
    torch.manual_seed(0)
    encoder = AudioEncoder(n_mels=80, n_ctx=100, n_state=64, n_head=1, n_layer=2).eval()
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    state["decoder.ln.weight"] = torch.ones(64)
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": state}, tmp_path / "small.pt")
    front_end = WhisperEncoderFeatures.from_pretrained(str(tmp_path / "small.pt"))
    waveform, lengths = speech((16000,))
    expected, _ = WhisperEncoderFeatures(encoder)(waveform, lengths)
    assert torch.equal(front_end(waveform, lengths)[0], expected)


def test_whisper_refuses_more_than_its_positions():
    front_end = whisper_encoder(n_ctx=50)
    assert front_end(*speech((16000,)))[0].shape[1] == 50
    with pytest.raises(ValueError, match=r"at most 1 s at a time, not 1.5 s; cut"):
        front_end(*speech((24000,)))


def test_missing_weights_say_how_to_get_them(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"Whisper nosuch: no weights .*name a \.pt file or one"):
        WhisperEncoderFeatures.from_pretrained("nosuch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"Whisper small: .*whisper\.load_model\('small'\)"):
        WhisperEncoderFeatures.from_pretrained("small")


def test_layers_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"layer \(4\) must be between 1 and the encoder's 3"):
        whisper_encoder(layer=4)
