"""The losses of the codec stage: HiFi-Codec's, the commitment loss, and one against timbre.

The papers write none of them out; they cite HiFi-Codec and PromptCodec. HiFi-Codec's public recipe
(yangdongchao/AcademiCodec, `academicodec/models/hificodec/train.py`, commit b6ac134) is followed:

    generator      LSGAN over three families of discriminators + 2 * feature matching
                   + 45 * L1 of a log mel + L1 of two finer ones + weight * commitment
    discriminator  LSGAN

HiFi-Codec weighs its quantiser's loss by 10; here it is 0.01, the only weight Takin-VC prints (ACL
§3.5, for the second stage).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.content import Content
from takin_vc.layers import masked
from takin_vc.mel import LogMel
from takin_vc.train.codec.discriminators import Verdict


def discriminator_loss(real: Sequence[Verdict], generated: Sequence[Verdict]) -> Tensor:
    """LSGAN (Mao et al. 2017): the sum of mean((1 - real)^2) + mean(generated^2) over verdicts."""
    losses = [
        (1 - r.logits).square().mean() + g.logits.square().mean()
        for r, g in zip(real, generated, strict=True)
    ]
    return torch.stack(losses).sum()


def adversarial_loss(generated: Sequence[Verdict]) -> Tensor:
    """LSGAN for the generator: the sum over discriminators of mean((1 - generated)^2)."""
    return torch.stack([(1 - g.logits).square().mean() for g in generated]).sum()


def feature_matching_loss(real: Sequence[Verdict], generated: Sequence[Verdict]) -> Tensor:
    """Twice the sum, over every layer of every discriminator, of the mean absolute difference.

    Gradients reach the generated side only.
    """
    losses = [
        F.l1_loss(g, r.detach())
        for real_verdict, generated_verdict in zip(real, generated, strict=True)
        for r, g in zip(real_verdict.features, generated_verdict.features, strict=True)
    ]
    return 2 * torch.stack(losses).sum()


def hifi_codec_mels(sample_rate: int = 16000) -> list[LogMel]:
    """The log mels that HiFi-Codec compares: one like a vocoder's, and two with shorter windows.

    Its 16 kHz configuration: 80 bands; windows 800, 512 and 256; hops 200, 120 and 60 samples.
    """
    return [
        LogMel(sample_rate=sample_rate, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=80)
        for n_fft, window, hop in ((1024, 800, 200), (512, 512, 120), (256, 256, 60))
    ]


class MelLoss(nn.Module):
    """Weighted sum of mean absolute differences of log mels.

    Args:
        mels: modules that map (B, T) to (B, n_mels, L); HiFi-Codec's three at 16 kHz where None.
        weights: one for each.

    Raises:
        ValueError: if there are not as many weights as mels.
    """

    def __init__(
        self,
        mels: Sequence[nn.Module] | None = None,
        weights: Sequence[float] = (45.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.mels = nn.ModuleList(hifi_codec_mels() if mels is None else mels)
        if len(self.mels) != len(weights):
            raise ValueError(f"{len(weights)} weights for {len(self.mels)} mels")
        self.weights = tuple(weights)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Waveforms (B, T), segments without padding -> a scalar."""
        losses = [
            weight * F.l1_loss(mel(generated), mel(real))
            for mel, weight in zip(self.mels, self.weights, strict=True)
        ]
        return torch.stack(losses).sum()


class SpeakerAdversary(nn.Module):
    """Classifies the speaker from the content, and trains the content against the classifier.

    The papers say that codec training reduces timbre leakage and not by what loss. This is the
    simplest that is well understood: a speaker classifier behind a gradient reversal (Ganin and
    Lempitsky 2015). The classifier learns to separate the training speakers by the content's
    mean and deviation over time; what it sends back is reversed, so the content encoder learns to
    make them alike. PromptCodec's disentangling loss, a cosine distance between its encoders'
    outputs, was left: it makes features orthogonal to a voiceprint, which does not make the
    voiceprint unreadable.

    Args:
        dim: channels of the content.
        speakers: in the training set.
        hidden: width of the classifier.
        strength: what the reversed gradient is multiplied by.
    """

    def __init__(
        self, dim: int, speakers: int, *, hidden: int = 256, strength: float = 1.0
    ) -> None:
        super().__init__()
        self.strength = strength
        self.classifier = nn.Sequential(
            nn.Linear(2 * dim, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, speakers)
        )

    def forward(self, content: Content, speaker: Tensor) -> Tensor:
        """Cross-entropy of the guesses.

        Args:
            content: of which features (B, L, dim) and mask (B, L) are used.
            speaker: index of each utterance's speaker, (B,) int64; -1 where it is not known.

        Returns:
            A scalar, the mean over known speakers; 0 if there are none.
        """
        x: Tensor = _Reverse.apply(content.features, self.strength)
        count = content.mask.sum(1)[:, None].clamp(min=1)
        mean = masked(x, content.mask).sum(1) / count  # (B, C)
        variance = masked((x - mean[:, None]).square(), content.mask).sum(1) / count
        deviation = (variance + 1e-5).sqrt()  # differentiable where nothing varies
        logits = self.classifier(torch.cat([mean, deviation], dim=1).float())
        known = (speaker >= 0).sum().clamp(min=1)
        return F.cross_entropy(logits, speaker, ignore_index=-1, reduction="sum") / known


class _Reverse(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -strength."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor, strength: float) -> Tensor:
        context.strength = strength  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(
        context: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        return -context.strength * gradients[0], None  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class CodecLoss:
    """The generator's losses, each with its weight, all scalars.

    Attributes:
        adversarial: for not passing as real.
        matching: for what the discriminators' layers see.
        mel: for the spectrum.
        commitment: of the quantiser.
        leak: how well the adversary guesses the speaker; reversed in the content's gradient.
    """

    adversarial: Tensor
    matching: Tensor
    mel: Tensor
    commitment: Tensor
    leak: Tensor

    @property
    def total(self) -> Tensor:
        """What to call `backward` on."""
        return torch.stack([getattr(self, field.name) for field in fields(self)]).sum()


class CodecObjective(nn.Module):
    """The losses of the codec stage, for alternating steps of discriminators and generator.

    The generator's parameters are the codec's and the adversary's: reversal makes one optimiser do
    for both.

    Args:
        discriminators: map (B, T) to verdicts.
        mel: of generated and real waveforms.
        adversary: None does without.
        commitment_weight: ACL §3.5.
        leak_weight: of the adversary's loss.
    """

    def __init__(
        self,
        discriminators: nn.Module,
        mel: nn.Module,
        *,
        adversary: SpeakerAdversary | None = None,
        commitment_weight: float = 0.01,
        leak_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.discriminators = discriminators
        self.mel = mel
        self.adversary = adversary
        self.commitment_weight = commitment_weight
        self.leak_weight = leak_weight

    def discriminator(self, real: Tensor, generated: Tensor) -> Tensor:
        """The discriminators' loss on waveforms (B, T); nothing reaches the generator."""
        return discriminator_loss(
            self.discriminators(real), self.discriminators(generated.detach())
        )

    def generator(
        self, real: Tensor, generated: Tensor, content: Content, speaker: Tensor | None = None
    ) -> CodecLoss:
        """The generator's losses.

        Args:
            real: (B, T), segments of speech without padding.
            generated: (B, T), their reconstruction.
            content: between the two.
            speaker: (B,) index, -1 unknown; needed with an adversary.

        Raises:
            ValueError: if there is an adversary and no speaker.
        """
        if self.adversary is not None and speaker is None:
            raise ValueError("the adversary needs the speaker of each utterance (-1 where unknown)")
        with torch.no_grad():
            truth = self.discriminators(real)
        verdicts = self.discriminators(generated)
        leak = real.new_zeros(())
        if self.adversary is not None and speaker is not None:
            leak = self.leak_weight * self.adversary(content, speaker)
        return CodecLoss(
            adversarial=adversarial_loss(verdicts),
            matching=feature_matching_loss(truth, verdicts),
            mel=self.mel(generated, real),
            commitment=self.commitment_weight * content.commitment,
            leak=leak,
        )
