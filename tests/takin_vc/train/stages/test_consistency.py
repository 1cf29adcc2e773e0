"""The losses of whole conversions: maps between spectra, what they compare, and what learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from takin_vc.config import build_model, load
from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.mel import KaldiFbank, LogMel
from takin_vc.model import TakinVC
from takin_vc.train.stage import TrainingError
from takin_vc.train.stages.consistency import Consistency, ConsistencySettings, SpectrumMap
from takin_vc.train.stages.conversion import ConversionStage, assemble
from tests.support import tiny_models as tiny

SETTINGS = ConsistencySettings(seconds=4, voice=0.1, words=0.2)
SAMPLES = 32000


def speech(count: int, seed: int = 0) -> torch.Tensor:
    """Filtered noise in bursts, (count, SAMPLES): something with a spectrum that moves."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, SAMPLES, generator=generator)
    time = torch.arange(SAMPLES) / 16000
    rates = 1 + 4 * torch.rand(count, 1, generator=generator)
    tone = torch.sin(2 * torch.pi * 120 * (1 + rates) * time)
    envelope = 0.55 + 0.45 * torch.sin(2 * torch.pi * rates * time)
    return 0.2 * envelope * (tone + 0.3 * noise)


def log_mel() -> LogMel:
    return LogMel(sample_rate=16000, n_fft=1024, hop_length=160, win_length=640, n_mels=80)


@pytest.fixture(scope="module")
def model() -> TakinVC:
    torch.manual_seed(0)
    config = load(
        [
            "model=mini",
            "model/voiceprint=campplus",
            "model.voiceprint.model._weights_=null",
            "model.content.ssl._weights_=null",
            "model.content.ppg._weights_=null",
            *("model.estimator.hidden=32", "model.estimator.blocks=2", "model.estimator.heads=2"),
            *("model.estimator.half_rate_blocks=0", "model.estimator.resnet_blocks=1"),
            "model.steps=2",
        ]
    )["model"]
    model = build_model(config).train()
    # A vector of the memory and the time has no effect on a new network: its last layers are zero.
    for parameter in model.estimator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def drawn(model: TakinVC, count: int = 3) -> dict[str, torch.Tensor]:
    """A batch of the conversion stage."""
    waves = speech(count, seed=1)
    lengths = torch.full((count,), SAMPLES)
    with torch.no_grad():
        ssl, _ = model.content.ssl(waves, lengths)
        ppg, _ = model.content.ppg(waves, lengths)
    references = speech(count, seed=2)
    return {
        "mel": model.mel(waves),
        "reference_mel": model.mel(references),
        "reference": references,
        "ssl": ssl,
        "ppg": ppg,
    }


def test_a_map_makes_kaldis_filter_bank_of_speech_that_it_has_not_seen():
    mel, fbank = log_mel(), KaldiFbank()
    lengths = torch.full((16,), SAMPLES)
    fitted = SpectrumMap(mel(speech(16)), fbank(speech(16), lengths))
    others = speech(16, seed=5)
    wanted = fbank(others, lengths)
    error = fitted(mel(others))[:, : wanted.shape[1]] - wanted
    assert float(error.square().mean() / wanted.var()) < 0.1


def test_frames_of_the_true_mel_are_those_of_the_speech(model):
    consistency = Consistency(model, speech(16), SETTINGS)
    others = speech(4, seed=5)
    with torch.no_grad():
        of_mel = consistency.encode(model.mel(others))
        of_speech, _ = model.content.ppg(others, torch.full((4,), SAMPLES))
    same, other = (
        1 - float(torch.cosine_similarity(frames, of_speech, dim=-1).mean())
        for frames in (of_mel, of_mel.roll(1, 0))
    )
    assert same < 0.2 * other  # the positions that all share leave little between two utterances


def test_losses_are_weighted_and_reach_all_that_learns(model):
    consistency = Consistency(model, speech(16), SETTINGS)
    batch = drawn(model)
    inputs, content = assemble(model, batch)
    torch.manual_seed(0)
    losses = consistency(model, inputs, content, batch["ppg"])
    assert set(losses) == {"voice", "words"}
    assert 0 < losses["voice"].item() < 2 * SETTINGS.voice
    assert 0 < losses["words"].item() < 2 * SETTINGS.words
    model.zero_grad()
    sum(losses.values()).backward()
    for part in (
        "timbre.keys_values.weight",
        "memory.input.linear.weight",
        "estimator.output.linear.weight",
        "content.ppg_projection.weight",
    ):
        assert float(model.get_parameter(part).grad.abs().max()) > 0, part
    assert all(p.grad is None for p in consistency.campplus.parameters())
    assert all(p.grad is None for p in consistency.recogniser.parameters())


def test_each_item_is_converted_to_the_voice_of_the_next(model):
    """With a flow that gives its target's mel, the voice loss is that of the next item's speech."""
    consistency = Consistency(model, speech(16), ConsistencySettings(4, voice=1.0, words=0.0))
    batch = drawn(model, count=2)
    inputs, content = assemble(model, batch)

    class Copies:
        """Stands in for the flow: its samples are the mels of the items after the first."""

        def sample(self, velocity, noise, condition, **_):
            return (batch["mel"].roll(-1, 0) - model.mel_mean) / model.mel_std

    flow, model.flow = model.flow, Copies()
    try:
        losses = consistency(model, inputs, content, batch["ppg"])
    finally:
        model.flow = flow
    assert losses["voice"].item() == pytest.approx(0, abs=1e-5)


def test_other_models_are_refused_by_name():
    with pytest.raises(TrainingError, match=r"needs CAM\+\+ .*consistency=null"):
        Consistency(tiny.new(), speech(2), SETTINGS)


class FewVersions:
    """Stands in for the versions of three recordings, by default of five seconds."""

    sample_rate = 16000

    def __init__(self, seconds=5.0, streams=("wave", "ppg")):
        self.streams = streams
        self.length = seconds

    def seconds(self):
        return np.full((1, 3), self.length)

    def wave(self, rows, first, samples):
        return speech(1).repeat(len(rows), samples // SAMPLES)


@pytest.mark.parametrize(
    ("versions", "settings", "codebook_steps", "message"),
    [
        (FewVersions(streams=("wave",)), {}, 2, "give features.stored=true"),
        (FewVersions(), {}, None, "give conversion.codebook_steps"),
        (FewVersions(3.9), {}, 2, "needs recordings of 4 s; leave it out"),
        (FewVersions(), {"voices": 1}, 2, "unexpected keyword argument 'voices'"),
        (FewVersions(), {"every": 0}, 2, "every is 0; give 1 or more"),
    ],
)
def test_what_can_judge_no_batch_is_refused(model, versions, settings, codebook_steps, message):
    with pytest.raises(TrainingError, match=message) as error:
        Consistency.fitted(model, versions, settings, codebook_steps)
    assert "\n" not in str(error.value)


def test_the_maps_are_fitted_to_training_recordings(model):
    fitted = Consistency.fitted(model, FewVersions(), {"seconds": 4}, 2)
    assert fitted.settings.seconds == 4
    assert fitted.to_fbank.weight.shape == (3 * 80, 80)


@pytest.mark.parametrize(("every", "phases"), [(1, ["judged"] * 4), (2, ["judged", "flow"] * 2)])
def test_batches_are_judged_at_intervals_once_the_codebook_stays(model, every, phases):
    stage = object.__new__(ConversionStage)
    stage.model, stage.codebook_steps = model, 0

    class Streams:
        streams = ("ppg",)

    stage.versions = Streams()
    stage.consistency = Consistency(model, speech(4), replace(SETTINGS, every=every))
    assert [stage.phase(step) for step in range(4)] == phases
    stage.codebook_steps = 2
    assert stage.phase(1) is None


def test_a_shorter_utterance_is_encoded_as_its_log_mel(model):
    recogniser = model.content.ppg
    assert isinstance(recogniser, WhisperEncoderFeatures)
    waves, lengths = speech(2), torch.tensor([SAMPLES, SAMPLES // 2])
    direct, mask = recogniser(waves, lengths)
    through, through_mask = recogniser.encode(*recogniser.log_mel(waves, lengths))
    assert torch.equal(direct, through)
    assert torch.equal(mask, through_mask)
