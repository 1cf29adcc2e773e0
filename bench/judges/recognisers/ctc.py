"""CTC speech recognisers of transformers: HuBERT and wav2vec 2.0 fine-tuned on LibriSpeech."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

from torch import Tensor

from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
from bench.judges import identity
from bench.judges.nn import wav2vec2 as wave
from bench.judges.nn.batches import full_precision, in_batches, pad
from bench.judges.recognisers import Transcript
from bench.weights import Weights
from bench.weights.find import HubFiles, find_folder

SAMPLE_RATE = 16_000  # Hz
LONGEST_SECONDS = 30.0  # longer speech is cut where it is quietest
SEARCHED_SECONDS = 10.0  # before the longest, where the cut is looked for
QUIET_SECONDS = 0.1  # over which loudness is taken
SIZES = {
    "facebook/hubert-large-ls960-ft": 1_262_000_000,
    "facebook/wav2vec2-large-960h-lv60-self": 1_262_000_000,
}


class CTC:
    """Greedy CTC: the likeliest token of each frame, repeats merged, blanks dropped; no language
    model and no randomness.

    Speech of more than 30 s is cut at its quietest tenth of a second between 20 and 30 s, again and
    again, and the parts are joined with a space.

    Args:
        repository: the model on the hub, such as facebook/hubert-large-ls960-ft.
        weights: a folder with config.json, preprocessor_config.json, vocab.json and
            model.safetensors or pytorch_model.bin; None for the hub's cache.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not transcripts.
    """

    VERSION = 1
    languages = frozenset(("en",))

    def __init__(
        self,
        repository: str,
        weights: str | None = None,
        device: str = "auto",
        batch_size: int = 8,
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._repository = repository
        self._folder, self._weights = find_folder(
            f"CTC recogniser {repository}",
            HubFiles(
                repository,
                files=("config.json", "preprocessor_config.json", "vocab.json"),
                either=("model.safetensors", "pytorch_model.bin"),
                size=SIZES.get(repository, 0),
            ),
            given=weights,
            licence="Apache-2.0",
        )

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self._weights

    @property
    def networks(self) -> tuple[str, ...]:
        return (self._repository,)

    @property
    def fingerprint(self) -> str:
        return identity("ctc", self.VERSION, self.weights, packages=["transformers"])

    @cached_property
    def model(self) -> Any:
        """transformers' HubertForCTC or Wav2Vec2ForCTC, loaded when first used."""
        import transformers

        config = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
        kinds = {"hubert": "HubertForCTC", "wav2vec2": "Wav2Vec2ForCTC", "wavlm": "WavLMForCTC"}
        if (kind := config.get("model_type")) not in kinds:
            raise UserError(f"{self._folder}: model_type {kind!r} is no {', '.join(kinds)}")
        model = wave.load_pretrained(getattr(transformers, kinds[kind]), self._folder)
        wave.prepare(model.base_model)
        return model.to(self.device)

    @cached_property
    def standardise(self) -> float | None:
        return wave.standardises(self._folder)

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Number → letter, without the blank and other special tokens; "|" is a space."""
        vocabulary = json.loads((self._folder / "vocab.json").read_text(encoding="utf-8"))
        return {
            number: " " if letter == "|" else letter
            for letter, number in vocabulary.items()
            if not (letter.startswith("<") and letter.endswith(">"))
        }

    def transcribe(self, waveforms: Sequence[Waveform], language: str = "en") -> list[Transcript]:
        """One transcript a waveform, in the model's letters (upper case, no punctuation)."""
        clips = [cut(w.resample(SAMPLE_RATE).samples) for w in waveforms]
        texts = iter(in_batches([p for parts in clips for p in parts], self.batch_size, self._run))
        joined = [" ".join(next(texts) for _ in parts) for parts in clips]
        return [Transcript(" ".join(text.split())) for text in joined]

    def _run(self, clips: Sequence[Tensor]) -> list[str]:
        model = self.model
        with full_precision():
            ready = wave.ready(model.base_model, clips, self.standardise)
            output, frames = wave.forward(model.base_model, *pad(ready, self.device))
            best = model.lm_head(output.last_hidden_state).argmax(2).cpu()
        return [
            spell(row[:length].tolist(), self.tokens)
            for row, length in zip(best, frames.tolist(), strict=True)
        ]


def spell(numbers: Sequence[int], tokens: Mapping[int, str]) -> str:
    """The text of the likeliest token of each frame: repeats merged, then unknown ones dropped."""
    return "".join(tokens.get(number, "") for number, _ in groupby(numbers))


def cut(samples: Tensor) -> list[Tensor]:
    """Samples (T,) at 16 kHz in parts of at most 30 s, cut where it is quietest."""
    longest, searched, quiet = (
        round(seconds * SAMPLE_RATE)
        for seconds in (LONGEST_SECONDS, SEARCHED_SECONDS, QUIET_SECONDS)
    )
    parts = []
    while len(samples) > longest:
        window = samples[longest - searched : longest]
        loudness = window.square().unfold(0, quiet, quiet // 2).mean(1)
        at = longest - searched + int(loudness.argmin()) * (quiet // 2) + quiet // 2
        parts.append(samples[:at])
        samples = samples[at:]
    return [*parts, samples]
