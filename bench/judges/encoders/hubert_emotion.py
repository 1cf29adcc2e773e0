"""Emotion embeddings by HuBERT large with a head trained on IEMOCAP (`hubert-large-superb-er`).

The emotion recognition of SUPERB (Yang et al. 2021, arXiv 2105.01051): the weighted sum of HuBERT's
layers, a projection to 256 channels, the mean over time, and four classes. The mean is the
embedding here. HuBERT (Hsu et al. 2021, arXiv 2106.07447) is frozen, as trained on Libri-Light.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
from bench.judges import SelfTest, identity
from bench.judges.nn import wav2vec2 as wave
from bench.judges.nn.batches import full_precision, in_batches, mask, masked_mean, pad
from bench.judges.style import Style
from bench.trials import Utterance
from bench.weights.find import HubFiles, find_folder

SAMPLE_RATE = 16_000  # Hz
FILE = "pytorch_model.bin"
HUB = HubFiles(
    "superb/hubert-large-superb-er",
    files=("config.json", "preprocessor_config.json", FILE),
    revision="32f8dbd449174e160844b0810696ebd2838a0219",
    size=1_263_000_000,
)
# As the hub shows it for that revision.
SHA256 = {FILE: "f9e5f9386285300a3e5e7d7f6852f578fec7bb0cc75e89661a3f98db7112237d"}
AROUSED, CALM = ("hap", "ang"), ("neu", "sad")

# Limits of the self-test, not measured with the published weights: random ones rise by 0.15.
SPEEDS = (0.8, 1.0, 1.25)
RISE_AT_LEAST = 0.3  # of the log odds of the aroused classes, from the slowest to the fastest
AROUSED_AT_MOST = 0.5  # share of read speech
SELF_TEST_RECORDINGS = 6


class HuBERTEmotion:
    """Emotion embeddings (256,), and log probabilities of neutral, happy, angry and sad.

    Args:
        weights: a folder with config.json, preprocessor_config.json and pytorch_model.bin; None
            for the hub's cache.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not embeddings.

    Raises:
        WeightsMissing: if the weights are not on this machine.
        UserError: if `weights` lacks a file, or, on first use, if one holds something else.
    """

    VERSION = 1
    languages = frozenset(("en",))
    networks = (HUB.repository,)

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 8
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._folder, self.weights = find_folder(
            "HuBERT large, emotion (SUPERB)",
            HUB,
            given=weights,
            licence="Apache-2.0",
            sha256=SHA256,
        )

    @property
    def fingerprint(self) -> str:
        return identity("hubert_emotion", self.VERSION, self.weights, packages=["transformers"])

    @cached_property
    def model(self) -> Any:
        """transformers' HubertForSequenceClassification, loaded when first used."""
        from transformers import HubertForSequenceClassification

        model: Any = wave.load_pretrained(HubertForSequenceClassification, self._folder)
        labels = model.config.id2label.values()
        if {*labels} != {*AROUSED, *CALM} or not model.config.use_weighted_layer_sum:
            raise UserError(
                f"{self._folder}: not these weights: its classes are {', '.join(labels)}, or it "
                f"sums no layers; get them again: {HUB.how}"
            )
        wave.prepare(model.hubert)
        return model.to(self.device)

    def styles(self, waveforms: Sequence[Waveform]) -> list[Style]:
        """Embeddings, and log probabilities of the classes."""
        clips = [w.resample(SAMPLE_RATE).samples for w in waveforms]
        return in_batches(clips, self.batch_size, self._run)

    def _run(self, clips: Sequence[Tensor]) -> list[Style]:
        model = self.model
        with full_precision():
            ready = wave.ready(model.hubert, clips, wave.standardises(self._folder))
            output, frames = wave.forward(
                model.hubert, *pad(ready, self.device), output_hidden_states=True
            )
            # The last one after its normalisation, which transformers 5 lists without.
            states = (*output.hidden_states[:-1], output.last_hidden_state)  # (B, L, C) each
            shares = model.layer_weights.softmax(0)
            x = sum(share * state for share, state in zip(shares, states, strict=True))
            x = model.projector(x).transpose(1, 2)  # (B, 256, L)
            means = masked_mean(x, mask(frames, x.shape[2])[:, None]).squeeze(2)
            logs = model.classifier(means).log_softmax(1).tolist()
            embeddings = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        names = [model.config.id2label[number] for number in range(len(logs[0]))]
        named = [dict(zip(names, row, strict=True)) for row in logs]
        return [Style(*both) for both in zip(embeddings, named, strict=True)]

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Plays read speech slower and faster: the faster and higher, the more aroused it sounds.

        Raises:
            UserError: if there are no recordings.
        """
        of_speaker = {recording.speaker: recording for recording in recordings}
        clips = [r.load() for r in [*of_speaker.values()][:SELF_TEST_RECORDINGS]]
        if not clips:
            raise UserError("the emotions of read speech need a recording; there is none")
        styles = [
            self.styles([Waveform(c.samples, round(c.sample_rate * speed)) for c in clips])
            for speed in SPEEDS
        ]
        odds = [float(np.mean([arousal(style) for style in played])) for played in styles]
        share = float(np.mean([style.label in AROUSED for style in styles[SPEEDS.index(1.0)]]))
        rises = odds == sorted(odds) and odds[-1] - odds[0] >= RISE_AT_LEAST
        listed = ", ".join(f"{m:+.2f} at {s:g} × speed" for s, m in zip(SPEEDS, odds, strict=True))
        return SelfTest(
            passed=rises and share <= AROUSED_AT_MOST,
            findings={
                "log odds of happy or angry": f"{listed} (must rise, by {RISE_AT_LEAST:g} in all)",
                "read speech called happy or angry": f"{share:.0%} (at most {AROUSED_AT_MOST:.0%})",
            },
        )


def arousal(style: Style) -> float:
    """Log odds of the happy and angry classes against the neutral and sad ones."""
    happy, angry, neutral, sad = (style.scores[name] for name in AROUSED + CALM)
    return float(np.logaddexp(happy, angry) - np.logaddexp(neutral, sad))
