"""Losses of the codec stage against numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from takin_vc.content import Content
from takin_vc.mel import LogMel
from takin_vc.train.codec.discriminators import Verdict
from takin_vc.train.codec.losses import (
    CodecObjective,
    MelLoss,
    SpeakerAdversary,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    hifi_codec_mels,
)


def verdict(logits: list[float], features: list[float] | None = None) -> Verdict:
    return Verdict(torch.tensor([logits]), (torch.tensor([features or logits]),))


def content(features: torch.Tensor, mask: torch.Tensor | None = None, commitment: float = 0.0):
    if mask is None:
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
    return Content(features, mask, torch.tensor(commitment))


def test_adversarial_losses_are_least_squares():
    real = [verdict([1.0, 0.0]), verdict([3.0])]
    generated = [verdict([2.0, 0.0]), verdict([1.0])]
    # mean(0, 1) + mean(4, 0), and 4 + 1
    assert discriminator_loss(real, generated).item() == pytest.approx(0.5 + 2 + 4 + 1)
    # mean(1, 1), and 0
    assert adversarial_loss(generated).item() == pytest.approx(1.0)


def test_feature_matching_is_twice_the_mean_difference_of_every_layer():
    real = [verdict([0.0], [1.0, 2.0]), verdict([0.0], [5.0])]
    generated = [verdict([0.0], [1.0, 5.0]), verdict([0.0], [4.0])]
    assert feature_matching_loss(real, generated).item() == pytest.approx(2 * (1.5 + 1.0))


def test_feature_matching_moves_the_generated_side_alone():
    x, y = (torch.tensor([v], requires_grad=True) for v in (1.0, 2.0))
    feature_matching_loss([Verdict(x, (x,))], [Verdict(y, (y,))]).backward()
    assert x.grad is None
    assert y.grad.item() == 2.0


def test_mel_loss_of_twice_the_loudness_is_log_2_times_the_weights():
    torch.manual_seed(0)
    mels = [LogMel(sample_rate=16000, n_fft=n, win_length=n, n_mels=10) for n in (512, 1024)]
    loss = MelLoss(mels, weights=(45.0, 1.0))
    waveform = torch.randn(2, 4000)
    assert loss(2 * waveform, waveform).item() == pytest.approx(46 * math.log(2), rel=1e-4)
    assert loss(waveform, waveform) == 0


def test_hificodecs_mels_are_its_16_khz_configuration():
    shapes = [(m.n_fft, m.win_length, m.hop_length, m.n_mels) for m in hifi_codec_mels()]
    assert shapes == [(1024, 800, 200, 80), (512, 512, 120, 80), (256, 256, 60, 80)]
    assert MelLoss().weights == (45.0, 1.0, 1.0)


def test_every_mel_needs_its_weight():
    with pytest.raises(ValueError, match="2 weights for 3 mels"):
        MelLoss(weights=(1.0, 1.0))


def test_the_adversary_reads_mean_and_deviation_over_valid_frames():
    """Logits by hand: twice the mean for the first speaker, the deviation for the second."""
    adversary = SpeakerAdversary(1, 2)
    adversary.classifier = nn.Linear(2, 2, bias=False)
    adversary.classifier.weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [5.0], [5.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    # means 2 and 5, deviations 1 and 0 (0.003 of the term that keeps its gradient finite)
    losses = [math.log(1 + math.exp(1 - 4)), math.log(1 + math.exp(10 - 0.00316))]
    result = adversary(content(features, mask), torch.tensor([0, 1]))
    assert result.item() == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_utterances_of_unknown_speakers_do_not_count():
    torch.manual_seed(0)
    adversary = SpeakerAdversary(4, 3, hidden=8)
    features = torch.randn(3, 5, 4)
    all_three = adversary(content(features), torch.tensor([2, -1, 0]))
    known = adversary(content(features[[0, 2]]), torch.tensor([2, 0]))
    torch.testing.assert_close(all_three, known)
    assert adversary(content(features), torch.tensor([-1, -1, -1])) == 0


def test_the_contents_gradient_is_reversed_and_the_classifiers_is_not():
    torch.manual_seed(0)
    adversary = SpeakerAdversary(4, 3, hidden=8, strength=0.5)
    features = torch.randn(2, 5, 4, requires_grad=True)
    speaker = torch.tensor([1, 2])
    adversary(content(features), speaker).backward()
    # the same loss without reversal, by hand
    plain = features.detach().clone().requires_grad_()
    deviation = (plain.var(1, unbiased=False) + 1e-5).sqrt()
    logits = adversary.classifier(torch.cat([plain.mean(1), deviation], 1))
    loss = nn.functional.cross_entropy(logits, speaker)
    weight = adversary.classifier[0].weight
    expected, straight = torch.autograd.grad(loss, (weight, plain))
    torch.testing.assert_close(weight.grad, expected)
    torch.testing.assert_close(features.grad, -0.5 * straight)


def test_content_learns_to_hide_the_speaker():
    """Features are a word plus a voice; a gain on each is learned against the adversary."""
    torch.manual_seed(0)
    adversary = SpeakerAdversary(2, 2, hidden=8)
    gain = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD(
        [
            {"params": [gain], "lr": 0.05},
            {"params": adversary.parameters(), "lr": 1.0, "weight_decay": 0.1},
        ]
    )
    speaker = torch.tensor([0, 1] * 8)
    voice = (2.0 * speaker - 1)[:, None].expand(-1, 20)
    guesses = []
    for _ in range(150):
        features = torch.stack([torch.randn(16, 20), voice], dim=-1) * gain
        guess = adversary(content(features), speaker)
        loss = guess + (gain[0] - 1).square()  # reconstruction asks to keep the word
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        guesses.append(guess.item())
    assert min(guesses) < 0.2  # at first it could tell them apart
    assert guesses[-1] == pytest.approx(math.log(2), abs=0.02)  # in the end it tosses a coin
    assert abs(gain[1].item()) < 0.2
    assert gain[0].item() == pytest.approx(1.0, abs=0.1)


class Echo(nn.Module):
    """A discriminator whose verdict is the waveform."""

    def forward(self, waveform):
        return [Verdict(waveform, (waveform,))]


class Loudness(nn.Module):
    """Stands in for the mel loss."""

    def forward(self, generated, real):
        return (generated - real).abs().mean()


def test_the_generators_losses_add_up_with_their_weights():
    objective = CodecObjective(Echo(), Loudness())
    losses = objective.generator(
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([[0.0, 2.0]]),
        content(torch.zeros(1, 1, 1), commitment=3.0),
    )
    assert losses.adversarial.item() == pytest.approx(1.0)
    assert losses.matching.item() == pytest.approx(2.0)
    assert losses.mel.item() == pytest.approx(1.0)
    assert losses.commitment.item() == pytest.approx(0.03)  # 0.01 of it, ACL equation 5
    assert losses.leak.item() == 0
    assert losses.total.item() == pytest.approx(4.03)


def test_the_discriminators_step_does_not_reach_the_generator():
    objective = CodecObjective(Echo(), Loudness())
    gain = torch.ones(1, requires_grad=True)
    generated = gain * torch.ones(1, 2)
    loss = objective.discriminator(torch.zeros(1, 2), generated)
    assert loss.item() == pytest.approx(2.0)
    assert not loss.requires_grad


def test_an_adversary_needs_speakers():
    objective = CodecObjective(
        Echo(), Loudness(), adversary=SpeakerAdversary(1, 2), leak_weight=0.5
    )
    waveform, hidden = torch.zeros(1, 2), content(torch.ones(1, 3, 1))
    with pytest.raises(ValueError, match="needs the speaker"):
        objective.generator(waveform, waveform, hidden)
    losses = objective.generator(waveform, waveform, hidden, torch.tensor([1]))
    expected = 0.5 * objective.adversary(hidden, torch.tensor([1]))
    torch.testing.assert_close(losses.leak, expected)
