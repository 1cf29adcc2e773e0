"""Accent embeddings by CommonAccent's ECAPA-TDNN (Zuluaga-Gomez et al. 2023, arXiv 2305.18283).

The weights are those of `Jzuluaga/accent-id-commonaccent_ecapa`. The network is that of
`bench.judges.encoders.ecapa`, but with leaky ReLU (the repository's hyperparams.yaml). It was
trained to put English of Common Voice into 16 classes, with an additive angular margin, so a
recording's embedding has a cosine to each class. Its authors' recipe fine-tunes a speaker encoder
(JuanPZuluaga/accent-recog-slt2022 at a2ff115, `accent_id/hparams/train_ecapa_tdnn.yaml`); whether
the published weights came from it is not stated.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
from bench.judges import SelfTest
from bench.judges.encoders import ecapa
from bench.judges.style import Style
from bench.trials import Utterance
from bench.weights import Weights
from bench.weights.find import HubFiles, find_folder
from bench.weights.state import read_state

NAME = "ECAPA-TDNN accent-id-commonaccent_ecapa"
CLASSIFIER, CLASSES = "classifier.ckpt", "accent_encoder.txt"
HUB = HubFiles(
    "Jzuluaga/accent-id-commonaccent_ecapa",
    files=(ecapa.FILE, CLASSIFIER, CLASSES),
    revision="14bebf44b7e7a34204d0acc2c897935945fb5c51",
    size=83_330_000,
)
# A line of speechbrain's CategoricalEncoder: the class, and its number.
CLASS = re.compile(r"'([\w .-]{1,64})' => (\d{1,4})")

# Self-test. Not measured with the published weights, which were not at hand: chosen far from what
# random weights reach (cosines of about 0.15) and below what the training asks for.
COSINE_AT_LEAST = 0.25
AGREE_AT_LEAST = 0.6
OF_EACH_SPEAKER = 3  # recordings


class CommonAccent(ecapa.ECAPA):
    """Accent embeddings (192,) and cosines to 16 accents of English.

    Args:
        weights: a folder with embedding_model.ckpt, classifier.ckpt and accent_encoder.txt; None
            for the hub's cache.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not embeddings.

    Raises:
        WeightsMissing: if the weights are not on this machine.
        UserError: if `weights` lacks a file, or, on first use, if one holds something else.
    """

    NAME = "commonaccent"
    VERSION = 1
    languages = frozenset(("en",))

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 16
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._folder, self._files = find_folder(NAME, HUB, given=weights, licence="MIT")
        self._weights = self._files[0]

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self._files

    @property
    def networks(self) -> tuple[str, ...]:
        return (HUB.repository,)

    @staticmethod
    def _load(path: Path) -> ecapa.EcapaTDNN:
        return ecapa.load(path, HUB.how, torch.nn.LeakyReLU)

    @cached_property
    def accents(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The classes, and their directions (K, 192), each of unit length."""
        names, path = classes(self._folder / CLASSES), self._folder / CLASSIFIER
        weight = read_state(path, NAME, HUB.how).get("weight")
        if not isinstance(weight, torch.Tensor) or weight.shape != (len(names), 192):
            raise UserError(
                f"{path} is not {NAME}: no weight of ({len(names)}, 192), one row for each class "
                f"of {CLASSES}; {HUB.how}"
            )
        return names, torch.nn.functional.normalize(weight.float(), dim=1).numpy()

    def styles(self, waveforms: Sequence[Waveform]) -> list[Style]:
        """Embeddings, and cosines to the classes."""
        names, directions = self.accents
        return [
            Style(row, dict(zip(names, map(float, directions @ row), strict=True)))
            for row in self.embed(waveforms)
        ]

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Recordings lie near a class, and those of one speaker in the same one.

        Raises:
            UserError: if there are no two recordings of one speaker.
        """
        of_speaker: dict[str, list[Utterance]] = {}
        for recording in recordings:
            of_speaker.setdefault(recording.speaker, []).append(recording)
        few = [group[:OF_EACH_SPEAKER] for group in of_speaker.values()]
        pairs = [pair for group in few for pair in combinations(group, 2)]
        if not pairs:
            raise UserError("comparing accents needs two recordings of one speaker")
        chosen = [recording for group in few for recording in group]
        styles = self.styles([recording.load() for recording in chosen])
        label = {r.utterance_id: style.label for r, style in zip(chosen, styles, strict=True)}
        cosine = float(np.mean([max(style.scores.values()) for style in styles]))
        agree = float(np.mean([label[a.utterance_id] == label[b.utterance_id] for a, b in pairs]))
        counted = Counter(label.values()).most_common()
        return SelfTest(
            passed=cosine >= COSINE_AT_LEAST and agree >= AGREE_AT_LEAST,
            findings={
                "cosine to the nearest accent": f"{cosine:.2f} (at least {COSINE_AT_LEAST})",
                "one accent for one speaker": (
                    f"{agree:.0%} of {len(pairs)} pairs (at least {AGREE_AT_LEAST:.0%})"
                ),
                "accents": ", ".join(f"{name} {count}" for name, count in counted),
            },
        )


def classes(path: Path) -> tuple[str, ...]:
    """The classes of a label file of speechbrain, by number.

    Raises:
        UserError: if the file holds something else.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    entries = [match for line in lines if (match := CLASS.fullmatch(line.strip())) is not None]
    names = {int(entry[2]): entry[1] for entry in entries if entry[1] != "starting_index"}
    if not names or sorted(names) != list(range(len(names))):
        raise UserError(f"{path}: no list of numbered accents; {HUB.how}")
    return tuple(names[number] for number in range(len(names)))
