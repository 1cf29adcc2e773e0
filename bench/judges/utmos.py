"""UTMOS: naturalness as listeners would rate it, predicted by the UTMOS22 strong learner.

Saeki et al. 2022, "UTMOS: UTokyo-SaruLab System for VoiceMOS Challenge 2022", arXiv 2204.02152,
section 3: the strong learner without its phoneme encoder, as papers use it through SpeechMOS
(github.com/tarepan/SpeechMOS, `utmos22_strong`, v1.2.0). The published weights load as they are.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from bench.audio import Waveform
from bench.devices import torch_device
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.nn import wav2vec2 as wave
from bench.judges.nn.batches import clips_of, full_precision, in_batches, mask, masked_mean, pad
from bench.trials import Utterance
from bench.weights.find import WebFile, find
from bench.weights.state import load_state, read_state

SAMPLE_RATE = 16_000  # Hz
SHORTEST = 400  # samples of one frame of wav2vec 2.0: 25 ms

FILE = "utmos22_strong_step7459_v1.pt"
URL = f"https://github.com/tarepan/SpeechMOS/releases/download/v1.0.0/{FILE}"
SIZE = 411_000_000  # bytes, about
# The same file on the Hugging Face hub: in its cache if another tool downloaded it.
HUB_REPOSITORY, HUB_FILE = "k2-fsa/TTS_eval_models", f"mos/{FILE}"

# The self-test's ladder: white noise can only make clean speech sound worse.
LADDER_SNRS = (20, 10, 0)  # dB
LADDER_RECORDINGS = 6
LADDER_SECONDS = 4.0
CLEAN_AT_LEAST = 3.0  # MOS; Takin-VC's table 1 has 4.21 for recordings of LibriTTS test-clean
DROP_AT_LEAST = 1.0  # MOS, clean to 0 dB: random weights can fall step by step too, by 0.1 or so


class StrongLearner(nn.Module):
    """wav2vec 2.0 base, a bidirectional LSTM and a projection: a score per frame, then their mean.

    The LSTM also receives which listening test and which listener to predict. The published
    weights hold one of each, those of the authors' demo: domain 0, the main track of the VoiceMOS
    Challenge 2022, and judge 288, the mean of that track's listeners.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wav2vec2 = wave.base()
        self.domain_emb = nn.Parameter(torch.zeros(1, 128))
        self.judge_emb = nn.Parameter(torch.zeros(1, 128))
        self.blstm = nn.LSTM(768 + 128 + 128, 512, batch_first=True, bidirectional=True)
        self.projection = nn.Sequential(nn.Linear(2 * 512, 2048), nn.ReLU(), nn.Linear(2048, 1))

    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        """samples (B, T) at 16 kHz, lengths (B,) of at least 400, None for all -> scores (B,).

        Padding behind a clip's length is masked: in the first layer's normalisation over time, in
        attention, in the LSTM and in the mean. Scores are about 1 to 5, not
        clipped.
        """
        if lengths is None:
            lengths = samples.new_full((len(samples),), samples.shape[1], dtype=torch.long)
        output, frames = wave.forward(self.wav2vec2, samples, lengths)
        features = output.last_hidden_state  # (B, L, 768)
        listener = torch.cat((self.domain_emb, self.judge_emb), dim=1)  # (1, 256)
        listener = listener.expand(*features.shape[:2], -1)  # (B, L, 256)
        packed = nn.utils.rnn.pack_padded_sequence(
            torch.cat((features, listener), dim=2),
            frames.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        outputs, _ = nn.utils.rnn.pad_packed_sequence(self.blstm(packed)[0], batch_first=True)
        scores = self.projection(outputs).transpose(1, 2)  # (B, L, 1024) -> (B, 1, L)
        # The network was trained on (MOS - 3) / 2: ratings of 1 to 5 become -1 to 1.
        valid = mask(frames, scores.shape[2])[:, None]
        return 3 + 2 * masked_mean(scores, valid).flatten()


def load(path: str | Path) -> StrongLearner:
    """The network with the weights of a file in SpeechMOS' format, on the CPU, ready to predict.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    remedy = f"get it from {URL}"
    state = read_state(path, "UTMOS22 strong", remedy)
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = StrongLearner()
    load_state(model, state, path, "UTMOS22 strong", remedy, wave.fairseq_name)
    return model.requires_grad_(False).eval()


class UTMOS22:
    """Predicts mean opinion scores of naturalness. Higher is better, recordings reach about 4.

    Padding, which changes the scores of the public code, is masked. Input is resampled to 16 kHz
    (by soxr, where SpeechMOS uses torchaudio) and otherwise left as it is.

    Args:
        weights: the published file; None for the caches of torch.hub and of the Hugging Face hub.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not scores.

    Raises:
        WeightsMissing: if the weights are not on this machine.
        UserError: at the first score, if they are something else.
    """

    VERSION = 1  # rises with every change of a score
    networks = ("utmos22-strong",)
    reads = frozenset({"converted"})
    metrics = ("utmos",)
    needs_source_words = False

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 8
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1")
        self.device = torch_device(device)
        self.batch_size = batch_size
        hub = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        cached = try_to_load_from_cache(HUB_REPOSITORY, HUB_FILE)
        self.weights = (
            find(
                "UTMOS22 strong",
                given=weights,
                candidates=[hub, *([Path(cached)] if isinstance(cached, str) else [])],
                how=WebFile(URL, hub, size=SIZE),
                sha256=None,  # its authors publish none
                licence="MIT",
            ),
        )

    @property
    def fingerprint(self) -> str:
        return identity("utmos22_strong", self.VERSION, self.weights, packages=["transformers"])

    @cached_property
    def model(self) -> StrongLearner:
        """The network, loaded when first used."""
        return load(self.weights[0].path).to(self.device)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        """`utmos` of each item; None for a clip under 25 ms, which has no frame to score.

        Raises:
            ValueError: if a score is not finite; names the trial.
        """
        clips = clips_of(items, SAMPLE_RATE)
        long = [i for i, clip in enumerate(clips) if len(clip) >= SHORTEST]
        predicted = in_batches([clips[i] for i in long], self.batch_size, self._predict)
        scores = dict(zip(long, predicted, strict=True))
        for index, value in scores.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"trial {items[index].trial_id}: UTMOS is {value}; are the weights "
                    f"({self.weights[0].path}) and the audio finite?"
                )
        return [{"utmos": scores.get(index)} for index in range(len(items))]

    def _predict(self, clips: Sequence[Tensor]) -> list[float]:
        model = self.model
        with full_precision():
            return model(*pad(clips, self.device)).tolist()

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Checks that recordings score well and that the more white noise, the lower the score.

        Raises:
            ValueError: if there are no recordings.
        """
        if not recordings:
            raise ValueError("the noise ladder needs at least one recording")
        chosen = recordings[:: max(1, len(recordings) // LADDER_RECORDINGS)][:LADDER_RECORDINGS]
        clean = [
            recording.load().first(LADDER_SECONDS).resample(SAMPLE_RATE) for recording in chosen
        ]
        means = {"clean": self._mean(clean)}
        for snr in LADDER_SNRS:
            generator = torch.Generator().manual_seed(0)
            means[f"{snr} dB"] = self._mean([with_noise(clip, snr, generator) for clip in clean])
        ladder = list(means.values())
        falls = all(lower < higher for higher, lower in pairwise(ladder))
        drop = ladder[0] - ladder[-1]
        return SelfTest(
            passed=falls and ladder[0] > CLEAN_AT_LEAST and drop >= DROP_AT_LEAST,
            findings={
                "clean recordings": f"{ladder[0]:.2f} MOS (must be above {CLEAN_AT_LEAST})",
                "noise ladder": ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
                + f" MOS (must fall at each step, and by {DROP_AT_LEAST} in all)",
                "recordings": f"{len(clean)}, the first {LADDER_SECONDS:g} s of each",
            },
        )

    def _mean(self, clips: Sequence[Waveform]) -> float:
        scores = self.score([Converted(str(n), converted=clip) for n, clip in enumerate(clips)])
        values = [float(score["utmos"]) for score in scores if score["utmos"] is not None]
        return sum(values) / len(values) if values else math.nan


def with_noise(clip: Waveform, snr: float, generator: torch.Generator) -> Waveform:
    """The clip plus white noise at a signal-to-noise ratio of `snr` dB, drawn by `generator`."""
    noise = torch.randn(len(clip.samples), generator=generator)
    scale = clip.samples.square().mean().sqrt() * 10 ** (-snr / 20)
    return Waveform(clip.samples + scale * noise, clip.sample_rate)
