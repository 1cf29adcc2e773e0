"""Takin-VC, whole: the words of one recording in the voice of another.

    source (T,) 16 kHz --> content ------------.
    reference (T',) 16 kHz --> voiceprint -.   |
    reference mel (R frames, shuffled) ----+-> timbre tokens --> cross-attention --> context (L)
                                               '--> memory (one vector) --.          |
                          noise (n_mels, L) --> flow, its velocity by the U-Net <----'
                                                 '--> mel --> vocoder --> converted (T,)

Takin-VC sec. 3 of both versions; ICLR figure 2. What neither says and was chosen here:
    Scale. The mel that the flow makes and the timbre tokens hold is shifted and scaled by two
        constants to about mean 0 and variance 1, as in Matcha-TTS: the noise has these.
    Without the cross-attention (ACL table 4, "w/o con": voiceprint only) the context is the content
        with the voiceprint beside it on every frame; the memory stays.
    Reference. Used whole, or its first `reference_seconds`; training is to use 4 s (ICLR sec. 3.1).
    Interpolation. The context is brought to the mel's frames after the cross-attention, linearly.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from takin_vc.chunks import Chunks, fade_weights
from takin_vc.content import SAMPLE_RATE, Content, HybridContentEncoder, resize_frames
from takin_vc.estimator import Prepared, UNetEstimator
from takin_vc.flow import SOLVERS, ConditionalFlow
from takin_vc.mel import LogMel, frame_mask
from takin_vc.memory import TimbreMemory
from takin_vc.timbre import ContextAwareTimbre, Voiceprint, timbre_tokens
from takin_vc.vocoder import BigVGAN

SILENCE_PEAK = 10 ** (-70 / 20)  # -70 dBFS: 10 steps of 16-bit audio
SHORTEST_SOURCE = 0.1  # seconds: one frame of the slowest front end
SHORTEST_REFERENCE = 0.25  # seconds: what a voiceprint needs, 23 of its frames
CONTENT_GRID = 1280  # samples: 80 ms, a whole number of frames of every front end
MEL_GRID = 4  # frames: the U-Net pairs them

Stage = Callable[[str], AbstractContextManager[None]]


def untimed(_: str) -> AbstractContextManager[None]:
    """A stage that nobody times."""
    return nullcontext()


class InputError(ValueError):
    """Speech that cannot be converted; the message names the fault."""


class Audio(Protocol):
    """Mono speech with its sample rate: `Speech`, or anything with these two."""

    @property
    def samples(self) -> Tensor:
        """(T,), float, nominally in [-1, 1], on the CPU."""
        ...

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        ...


class Speech(NamedTuple):
    """Mono speech.

    Attributes:
        samples: (T,), float32, in [-1, 1], on the CPU.
        sample_rate: in Hz.
    """

    samples: Tensor
    sample_rate: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Sources and references as the model takes them, padded at their ends.

    Attributes:
        source: (B, T) at 16 kHz.
        source_lengths: in samples, (B,).
        reference: (B, T') at 16 kHz.
        reference_lengths: in samples, (B,).
        reference_mel: log mel, (B, n_mels, R).
        reference_mel_lengths: in frames, (B,).
        mel_lengths: frames of the sources' mel, (B,). These and the references' may stay on the CPU
            where none is padded.
        mel: the sources' log mel, (B, n_mels, L), to train on; None in conversion.
    """

    source: Tensor
    source_lengths: Tensor
    reference: Tensor
    reference_lengths: Tensor
    reference_mel: Tensor
    reference_mel_lengths: Tensor
    mel_lengths: Tensor
    mel: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """The loss of the conversion stage (ACL eq. 5).

    Attributes:
        total: flow + commitment_weight x commitment.
        flow: of the conditional flow matching.
        commitment: of the content's quantiser.
    """

    total: Tensor
    flow: Tensor
    commitment: Tensor


class TakinVC(nn.Module):
    """The model, of finished parts.

    Args:
        content: hears what is said.
        voiceprint: hears who speaks; None is the ablation w/o vp.
        timbre: gives each frame of content its timbre; None is the ablation w/o con.
        memory: sums the reference up in one vector; None is the ablation w/o mem.
        estimator: the flow's network.
        flow: the path from noise to mel.
        mel: the log mel that the vocoder takes.
        vocoder: mel to waveform; frozen.
        mel_mean: of log mels, about; taken off before the network sees them.
        mel_std: of log mels, about; divided by after that.
        shuffle: put the reference's frames in random order (both papers, sec. 3.3).
        shuffle_memory: the memory sees that order too (ACL sec. 3.3.1); else the frames as they
            come (ICLR sec. 3.3.2).
        reference_seconds: how much of a reference is used, from its beginning; None for all.
        steps: of the solver.
        solver: "euler", "midpoint" or "heun".
        guidance: coefficient w of classifier-free guidance; 0 is none.
        commitment_weight: of the quantiser's loss (lambda in ACL sec. 3.5).
        condition_dropout: share of training items whose condition is dropped, so that guidance has
            something to guide away from.
        chunk_seconds: longer sources are converted in chunks of this length.
        overlap_seconds: that neighbouring chunks share.

    Raises:
        ValueError: if the parts do not fit each other.
    """

    def __init__(
        self,
        *,
        content: HybridContentEncoder,
        voiceprint: Voiceprint | None,
        timbre: ContextAwareTimbre | None,
        memory: TimbreMemory | None,
        estimator: UNetEstimator,
        flow: ConditionalFlow,
        mel: LogMel,
        vocoder: BigVGAN,
        mel_mean: float = -6.0,
        mel_std: float = 2.0,
        shuffle: bool = True,
        shuffle_memory: bool = True,
        reference_seconds: float | None = None,
        steps: int = 10,
        solver: str = "euler",
        guidance: float = 0.7,
        commitment_weight: float = 0.01,
        condition_dropout: float = 0.1,
        chunk_seconds: float = 30.0,
        overlap_seconds: float = 2.0,
    ) -> None:
        super().__init__()
        for what in ("sample_rate", "hop_length", "n_mels"):
            if getattr(mel, what) != getattr(vocoder, what):
                raise ValueError(
                    f"mel and vocoder differ in {what} ({getattr(mel, what)} and "
                    f"{getattr(vocoder, what)}); take both from one preset"
                )
        frames = CONTENT_GRID * content.frame_rate / SAMPLE_RATE
        if frames != int(frames):
            raise ValueError(
                f"{content.name} has {content.frame_rate} frames a second; sources are cut every "
                f"{1000 * CONTENT_GRID / SAMPLE_RATE:g} ms, which must be whole frames"
            )
        if reference_seconds is not None and reference_seconds < SHORTEST_REFERENCE:
            raise ValueError(
                f"reference_seconds ({reference_seconds}) must be at least {SHORTEST_REFERENCE}"
            )
        if solver not in SOLVERS:
            raise ValueError(f"unknown solver {solver!r}; there are {', '.join(SOLVERS)}")
        if not isinstance(steps, int) or steps < 1 or not 0 <= guidance < math.inf:
            raise ValueError(
                f"steps ({steps}) must be at least 1 and whole, guidance ({guidance}) at least 0"
            )
        if not (math.isfinite(mel_mean) and 0 < mel_std < math.inf):
            raise ValueError(f"mel_mean ({mel_mean}) must be a number, mel_std ({mel_std}) above 0")
        self.content = content
        self.voiceprint = voiceprint
        self.timbre = timbre
        self.memory = memory
        self.estimator = estimator
        self.flow = flow
        self.mel = mel
        self.vocoder = vocoder.requires_grad_(False)
        self.mel_mean = mel_mean
        self.mel_std = mel_std
        self.shuffle = shuffle
        self.shuffle_memory = shuffle_memory
        self.reference_seconds = reference_seconds
        self.steps = steps
        self.solver = solver
        self.guidance = guidance
        self.commitment_weight = commitment_weight
        self.condition_dropout = condition_dropout
        self.content_chunks = _chunks(chunk_seconds, overlap_seconds, SAMPLE_RATE, CONTENT_GRID)
        self.mel_chunks = _chunks(chunk_seconds, overlap_seconds, mel.frame_rate, MEL_GRID)

    @property
    def sample_rate(self) -> int:
        """Of the converted speech, in Hz."""
        return self.mel.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.estimator.null_context.device

    def convert(
        self, source: Audio, reference: Audio, *, seed: int, stage: Stage = untimed
    ) -> Speech:
        """The words of `source` in the voice of `reference`: `convert_batch` of one."""
        return self.convert_batch([source], [reference], seeds=[seed], stage=stage)[0]

    @torch.inference_mode()
    def convert_batch(
        self,
        sources: Sequence[Audio],
        references: Sequence[Audio],
        *,
        seeds: Sequence[int],
        stage: Stage = untimed,
    ) -> list[Speech]:
        """The words of each source in the voice of its reference.

        A conversion depends on its source, its reference and its seed alone, not on the batch.

        Args:
            sources: at any sample rate.
            references: one a source, at any sample rate.
            seeds: one a source; of the noise and of the order of the reference's frames.
            stage: entered with the name of each stage ("content", "timbre", "flow", "vocoder")
                around it, to time it.

        Returns:
            The converted speech at `sample_rate`, as long as its source to within a frame.

        Raises:
            InputError: if a source or a reference is empty, silent, too short or not finite.
            ValueError: if there are not as many references and seeds as sources.
        """
        if not len(sources) == len(references) == len(seeds):
            raise ValueError(
                f"each source needs a reference and a seed: got {len(sources)} sources, "
                f"{len(references)} references and {len(seeds)} seeds"
            )
        if not sources:
            return []
        mels, lengths = self.convert_to_mel(sources, references, seeds=seeds, stage=stage)
        with stage("vocoder"):
            return self.speak(mels, lengths)

    @torch.inference_mode()
    def convert_to_mel(
        self,
        sources: Sequence[Audio],
        references: Sequence[Audio],
        *,
        seeds: Sequence[int],
        stage: Stage = untimed,
    ) -> tuple[Tensor, Tensor]:
        """As `convert_batch` of at least one source, up to what the vocoder is to speak.

        Returns:
            Log mels (B, n_mels, L), and their lengths in frames (B,).
        """
        if self.training:
            raise RuntimeError("convert needs the model in evaluation mode: call eval() first")
        with stage("content"):
            batch = self.prepare(sources, references)
            content = self._content_in_chunks(batch.source, batch.source_lengths)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        lengths = batch.mel_lengths.tolist()
        # Noise for the whole of each source, so that chunks agree where they overlap, and drawn
        # before all else, so that it depends on nothing but the seed.
        noise = _pad(
            [
                torch.randn(frames, self.mel.n_mels, generator=generator)
                for frames, generator in zip(lengths, generators, strict=True)
            ]
        ).transpose(1, 2)  # (B, L, n_mels) -> (B, n_mels, L)
        with stage("timbre"):
            context, memory = self.condition(batch, content, generators)
        with stage("flow"):
            mel = self._sample(self._sent(noise), context, memory, lengths)
        return mel * self.mel_std + self.mel_mean, batch.mel_lengths

    @torch.inference_mode()
    def speak(self, mels: Tensor, lengths: Tensor) -> list[Speech]:
        """Log mels (B, n_mels, L) of `lengths` frames (B,), spoken by the vocoder."""
        waveform = self._vocode(mels, lengths).float().cpu()
        hop = self.mel.hop_length
        return [
            Speech(samples[: frames * hop].clone(), self.sample_rate)
            for samples, frames in zip(waveform, lengths.tolist(), strict=True)
        ]

    def loss(self, batch: Batch, *, generator: torch.Generator | None = None) -> Loss:
        """The loss of the conversion stage: flow matching and the quantiser's (ACL eq. 5).

        Args:
            batch: from `prepare` with `targets`.
            generator: of order, dropout, noise and times, on the CPU; torch's own where None.

        Raises:
            ValueError: if the batch has no target mel.
        """
        content = self.content(batch.source, batch.source_lengths)
        return self.loss_of_content(batch, content, generator=generator)

    def loss_of_content(
        self, batch: Batch, content: Content, *, generator: torch.Generator | None = None
    ) -> Loss:
        """As `loss`, of content that was heard already: its front ends are frozen and need not hear
        a recording twice.

        Args:
            batch: with target mel; its sources are not looked at.
            content: of the sources.
            generator: of order, dropout, noise and times, of any device; torch's own where None.
        """
        if batch.mel is None:
            raise ValueError("the batch has no target mel; make it by prepare(..., targets=True)")
        context, memory = self.condition(batch, content, generator)
        mask = _mask(batch.mel_lengths, batch.mel.shape[2])
        device = context.device if generator is None else generator.device
        chance = torch.rand(len(context), generator=generator, device=device)
        dropped = (chance < self.condition_dropout).to(context.device)
        prepared = self.estimator.prepare(context, memory, mask, dropped)
        target = (batch.mel - self.mel_mean) / self.mel_std
        flow = self.flow.loss(self.estimator.velocity, target, prepared, mask, generator)
        commitment = content.commitment
        return Loss(flow + self.commitment_weight * commitment, flow, commitment)

    def prepare(
        self, sources: Sequence[Audio], references: Sequence[Audio], *, targets: bool = False
    ) -> Batch:
        """Resamples, pads and takes mel spectrograms.

        Args:
            sources: at any sample rate.
            references: one a source, at any sample rate; cut to `reference_seconds`.
            targets: whether to take the sources' mel, to train on.

        Raises:
            InputError: if a source or a reference is empty, silent, too short or not finite.
        """
        for source in sources:
            _check(source, "source", SHORTEST_SOURCE)
        cut: list[Audio] = []
        for reference in references:
            _check(reference, "reference", SHORTEST_REFERENCE)
            samples, rate = reference.samples, reference.sample_rate
            if self.reference_seconds is not None:
                samples = samples[: round(self.reference_seconds * rate)]
            cut.append(Speech(samples, rate))
        waveform, lengths = self._waveforms(sources, SAMPLE_RATE)
        reference_waveform, reference_lengths = self._waveforms(cut, SAMPLE_RATE)
        reference_mel, reference_mel_lengths = self._mels(cut)
        if targets:
            mel, mel_lengths = self._mels(sources)
        else:
            mel = None
            counts = [len(s.samples) * self.sample_rate // s.sample_rate for s in sources]
            mel_lengths = self.mel.frames(torch.tensor(counts)).to(self.device)
        return Batch(
            source=waveform,
            source_lengths=lengths,
            reference=reference_waveform,
            reference_lengths=reference_lengths,
            reference_mel=reference_mel,
            reference_mel_lengths=reference_mel_lengths,
            mel_lengths=mel_lengths,
            mel=mel,
        )

    def condition(
        self,
        batch: Batch,
        content: Content,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the flow's network is told.

        Args:
            batch: the references, and how many mel frames the sources have.
            content: of the sources.
            generator: of the order of the reference's frames; one a batch item, or one for all.

        Returns:
            The context, (B, L, C) on mel frames, and the memory, (B, C'), None without.
        """
        vector = None
        if self.voiceprint is not None:
            vector = self.voiceprint(batch.reference, batch.reference_lengths)
        mel = (batch.reference_mel - self.mel_mean) / self.mel_std
        mask = _mask(batch.reference_mel_lengths, mel.shape[2])
        tokens = timbre_tokens(mel, vector, mask, shuffle=self.shuffle, generator=generator)

        memory = None
        if self.memory is not None:
            seen = tokens
            if self.shuffle and not self.shuffle_memory:
                seen = timbre_tokens(mel, vector, mask, shuffle=False)
            memory = self.memory(seen.to(_dtype(self.memory)), mask)
            memory = memory.to(_dtype(self.estimator))

        features = content.features
        if self.timbre is not None:
            dtype = _dtype(self.timbre)
            features = self.timbre(features.to(dtype), content.mask, tokens.to(dtype), mask)
        elif vector is not None:
            beside = vector[:, None].expand(-1, features.shape[1], -1)
            features = torch.cat([features, beside.to(features)], dim=-1)
        frames = int(batch.mel_lengths.max())
        new_mask = _mask(batch.mel_lengths, frames)
        if new_mask is None:
            new_mask = torch.ones(len(features), frames, dtype=torch.bool, device=features.device)
        context = resize_frames(features, content.mask, new_mask)
        return context.to(_dtype(self.estimator)), memory

    def _content_in_chunks(self, waveform: Tensor, lengths: Tensor) -> Content:
        """Content of waveforms (B, T) at 16 kHz; long ones in chunks, with no gradient."""
        chunks = self.content_chunks
        if waveform.shape[1] <= chunks.size:
            return self.content(waveform, lengths)
        counts = lengths.tolist()
        starts = [chunks.starts(count) for count in counts]
        found: list[list[Tensor]] = [[] for _ in starts]
        # The k-th chunks of all sources that have so many run as one batch.
        for k in range(max(map(len, starts))):
            items = [i for i, mine in enumerate(starts) if k < len(mine)]
            pieces = [waveform[i, starts[i][k] : counts[i]][: chunks.size] for i in items]
            sizes = torch.tensor([len(piece) for piece in pieces], device=waveform.device)
            content = self.content(_pad(pieces), sizes)
            for i, features, mask in zip(items, content.features, content.mask, strict=True):
                found[i].append(features[mask])
        wholes = []
        for mine, features in zip(starts, found, strict=True):
            frames = [int(start * self.content.frame_rate / SAMPLE_RATE) for start in mine]
            shares = fade_weights(frames, [len(piece) for piece in features])
            whole = features[0].new_zeros(frames[-1] + len(features[-1]), features[0].shape[1])
            for start, piece, share in zip(frames, features, shares, strict=True):
                whole[start : start + len(piece)] += piece * share.to(piece)[:, None]
            wholes.append(whole)
        joined = _pad(wholes)
        new_lengths = torch.tensor([len(whole) for whole in wholes], device=waveform.device)
        mask = frame_mask(new_lengths, joined.shape[1])
        return Content(joined, mask, joined.new_zeros(()))

    def _sample(
        self, noise: Tensor, context: Tensor, memory: Tensor | None, lengths: list[int]
    ) -> Tensor:
        """noise (B, n_mels, L), context (B, L, C), memory (B, C') -> normalised mel (B, n_mels, L).

        Of long sources, the velocity is that of overlapping chunks, faded into one another at every
        step: all chunks walk one path from one noise, so they never come apart.
        """
        estimator = self.estimator
        batch = len(noise)
        pieces = _pieces(lengths, self.mel_chunks, noise.device)

        def prepared(drop: Tensor | None) -> tuple[Prepared, ...]:
            return tuple(
                estimator.prepare(
                    context if piece.whole else piece.cut(context.transpose(1, 2)).transpose(1, 2),
                    None if memory is None else memory[piece.rows],
                    piece.mask,
                    None if drop is None else drop[piece.rows],
                )
                for piece in pieces
            )

        def velocity(xt: Tensor, t: Tensor, conditions: tuple[Prepared, ...]) -> Tensor:
            if pieces[0].whole:
                return estimator.velocity(xt, t, conditions[0])
            total = torch.zeros_like(xt)
            for piece, condition in zip(pieces, conditions, strict=True):
                both = piece.repeat(len(xt) // batch, batch)  # twice the batch under guidance
                v = estimator.velocity(both.cut(xt), t[both.rows], condition)
                both.add(v, total)
            return total

        null = None
        if self.guidance > 0:
            null = prepared(torch.ones(batch, dtype=torch.bool, device=noise.device))
        return self.flow.sample(
            velocity,
            noise,
            prepared(None),
            null=null,
            steps=self.steps,
            solver=self.solver,
            guidance=self.guidance,
        )

    def _vocode(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Log mel (B, n_mels, L) to waveforms (B, T); long ones in chunks.

        A chunk is given as many frames on either side as the vocoder can hear, so it gives the same
        samples as the whole.
        """
        reach, size, hop = self.vocoder.reach_frames, self.mel_chunks.size, self.mel.hop_length
        frames = mel.shape[2]
        mel = mel.to(_dtype(self.vocoder))
        waveforms = []
        for start in range(0, frames, size):
            end = min(start + size, frames)
            left, right = max(start - reach, 0), min(end + reach, frames)
            valid = (lengths - left).clamp(0, right - left)
            here = None if bool((valid == right - left).all()) else valid
            waveform = self.vocoder(mel[:, :, left:right], here)
            waveforms.append(waveform[:, (start - left) * hop : (end - left) * hop])
        return torch.cat(waveforms, dim=1)

    def _sent(self, x: Tensor) -> Tensor:
        """x on the model's device."""
        return x.to(self.device)

    def _waveforms(self, speech: Sequence[Audio], sample_rate: int) -> tuple[Tensor, Tensor]:
        """Padded waveforms (B, T) at `sample_rate`, lengths (B,), on the model's device."""
        samples = [_resample(s.samples, s.sample_rate, sample_rate) for s in speech]
        lengths = torch.tensor([len(s) for s in samples])
        return _pad(samples).to(self.device), lengths.to(self.device)

    def _mels(self, speech: Sequence[Audio]) -> tuple[Tensor, Tensor]:
        """Log mels (B, n_mels, L) and their lengths (B,) in frames."""
        waveform, lengths = self._waveforms(speech, self.mel.sample_rate)
        return self.mel(waveform, lengths), self.mel.frames(lengths)


@dataclass(frozen=True, eq=False)
class _Piece:
    """The k-th chunks of all sources that have so many.

    Attributes:
        rows: which batch items they are of, (N,).
        index: their frames in these items, (N, S); the last frame over again beyond the end.
        shares: of each in the whole, 0 beyond the end, (N, S).
        mask: (N, S), True on valid frames; None where all are.
        whole: every item is one chunk: nothing is cut.
    """

    rows: Tensor
    index: Tensor
    shares: Tensor
    mask: Tensor | None
    whole: bool

    def repeat(self, copies: int, batch: int) -> "_Piece":
        """The same of a batch that is `copies` times the old one of `batch` items."""
        rows = torch.cat([self.rows + copy * batch for copy in range(copies)])
        return _Piece(
            rows, self.index.repeat(copies, 1), self.shares.repeat(copies, 1), None, self.whole
        )

    def cut(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (N, C, S)."""
        index = self.index[:, None].expand(-1, x.shape[1], -1)
        return x[self.rows].gather(2, index)

    def add(self, piece: Tensor, total: Tensor) -> None:
        """Adds the shares of `piece` (N, C, S) to `total` (B, C, L), in place."""
        index = self.index[:, None].expand_as(piece)
        total[self.rows] = total[self.rows].scatter_add(2, index, piece * self.shares[:, None])


def _pieces(lengths: list[int], chunks: Chunks, device: torch.device) -> list[_Piece]:
    """How sources of `lengths` frames are cut."""
    longest = max(lengths)
    starts = [chunks.starts(length) for length in lengths]
    sizes = [
        [min(chunks.size, length - start) for start in mine]
        for length, mine in zip(lengths, starts, strict=True)
    ]
    shares = [fade_weights(*pair) for pair in zip(starts, sizes, strict=True)]
    size = min(chunks.size, longest)
    pieces = []
    for k in range(max(map(len, starts))):
        rows = [i for i, mine in enumerate(starts) if k < len(mine)]
        counts = torch.tensor([sizes[i][k] for i in rows], device=device)
        first = torch.tensor([starts[i][k] for i in rows], device=device)
        index = first[:, None] + torch.arange(size, device=device)
        pieces.append(
            _Piece(
                torch.tensor(rows, device=device),
                index.clamp(max=longest - 1),
                _pad([*(shares[i][k] for i in rows), torch.zeros(size)])[:-1].to(device),
                _mask(counts, size),
                whole=longest <= chunks.size,
            )
        )
    return pieces


def _chunks(seconds: float, overlap: float, rate: float, grid: int) -> Chunks:
    """Chunks of at most `seconds` at `rate` a second, on the grid."""
    size = int(seconds * rate) // grid * grid
    return Chunks(size, int(overlap * rate), grid)


def _check(speech: Audio, what: str, shortest: float) -> None:
    """Raises an InputError where `speech` cannot be used as `what`."""
    samples, sample_rate = speech.samples, speech.sample_rate
    if samples.ndim != 1:
        raise InputError(f"the {what} has shape {tuple(samples.shape)}; it must be mono, (T,)")
    if sample_rate <= 0:
        raise InputError(f"the {what} has a sample rate of {sample_rate} Hz; it must be positive")
    if len(samples) == 0:
        raise InputError(f"the {what} is empty: it has no samples")
    if not bool(torch.isfinite(samples).all()):
        raise InputError(f"the {what} is not finite: it has NaN or infinite samples")
    seconds = len(samples) / sample_rate
    if seconds < shortest:
        raise InputError(
            f"the {what} is too short: {seconds:.3f} s ({len(samples)} samples at {sample_rate} "
            f"Hz); it must be at least {shortest} s"
        )
    if float(samples.abs().max()) < SILENCE_PEAK:
        raise InputError(f"the {what} is silent: its peak is under -70 dBFS")


def _resample(samples: Tensor, old: int, new: int) -> Tensor:
    """samples (T,) at `old` Hz, float32 at `new` Hz."""
    samples = samples.detach().cpu().float()
    if old == new:
        return samples
    return torch.from_numpy(np.ascontiguousarray(soxr.resample(samples.numpy(), old, new)))


def _pad(rows: Sequence[Tensor]) -> Tensor:
    """Rows (T, ...) of different T as one (B, T, ...), zeros at the ends."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _mask(lengths: Tensor, frames: int) -> Tensor | None:
    """(B, frames), True on the first `lengths`; None where that is all, which runs faster."""
    return None if bool((lengths == frames).all()) else frame_mask(lengths, frames)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
