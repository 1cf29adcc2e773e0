"""The whole of Takin-VC: converts the words of one recording to the voice of another.

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
        joined to the voiceprint on every frame; the memory stays.
    Reference. Used whole, or its first `reference_seconds`; training is to use 4 s (ICLR sec. 3.1).
    Interpolation. The context is brought to the mel's frames after the cross-attention, linearly.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from takin_vc.chunks import chunks_of, content_in_chunks, cut_pieces, vocode_in_chunks
from takin_vc.content import Content, HybridContentEncoder, resize_frames
from takin_vc.estimator import Prepared, UNetEstimator
from takin_vc.flow import SOLVERS, ConditionalFlow, Loss
from takin_vc.frontends.base import SAMPLE_RATE
from takin_vc.inputs import (
    SHORTEST_REFERENCE,
    SHORTEST_SOURCE,
    Audio,
    Batch,
    Speech,
    check_speech,
    pad_rows,
    resample,
)
from takin_vc.mel import LogMel, mask_if_padded
from takin_vc.memory import TimbreMemory
from takin_vc.timbre import ContextAwareTimbre, Voiceprint, timbre_tokens
from takin_vc.vocoder import Vocoder

CONTENT_GRID = 1280  # samples: 80 ms, a whole number of frames of every front end
MEL_GRID = 4  # frames: the U-Net pairs them

Stage = Callable[[str], AbstractContextManager[None]]


def untimed(_: str) -> AbstractContextManager[None]:
    """A stage that is not timed."""
    return nullcontext()


class TakinVC(nn.Module):
    """The model, built from finished parts.

    Args:
        content: encodes words and expression.
        voiceprint: embeds the speaker; None is the ablation w/o vp.
        timbre: gives each frame of content its timbre; None is the ablation w/o con.
        memory: summarises the reference in one vector; None is the ablation w/o mem.
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
            an unconditional estimate to guide away from.
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
        vocoder: Vocoder,
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
        self.content_chunks = chunks_of(chunk_seconds, overlap_seconds, SAMPLE_RATE, CONTENT_GRID)
        self.mel_chunks = chunks_of(chunk_seconds, overlap_seconds, mel.frame_rate, MEL_GRID)

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
        """Converts `source` to the voice of `reference`: `convert_batch` of one."""
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
        """Converts each source to the voice of its reference.

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
        """As `convert_batch` of at least one source, up to the mel.

        Returns:
            Log mels (B, n_mels, L), and their lengths in frames (B,).
        """
        if self.training:
            raise RuntimeError("convert needs the model in evaluation mode: call eval() first")
        with stage("content"):
            batch = self.prepare(sources, references)
            content = content_in_chunks(
                self.content, batch.source, batch.source_lengths, self.content_chunks
            )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        lengths = batch.mel_lengths.tolist()
        # Noise for the whole of each source, so that chunks agree where they overlap. It is drawn
        # first, so that it depends only on the seed.
        noise = pad_rows(
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
        """Vocodes log mels (B, n_mels, L) of `lengths` frames (B,)."""
        waveform = vocode_in_chunks(self.vocoder, mels, lengths, self.mel_chunks.size).float().cpu()
        hop = self.mel.hop_length
        return [
            Speech(samples[: frames * hop].clone(), self.sample_rate)
            for samples, frames in zip(waveform, lengths.tolist(), strict=True)
        ]

    def loss(self, batch: Batch, *, generator: torch.Generator | None = None) -> Loss:
        """The loss of the conversion stage: flow matching and the quantiser's (ACL eq. 5).

        Args:
            batch: from `prepare` with `targets`.
            generator: of order, dropout, noise and times, on the CPU; None: torch's global one.

        Raises:
            ValueError: if the batch has no target mel.
        """
        content = self.content(batch.source, batch.source_lengths)
        return self.loss_of_content(batch, content, generator=generator)

    def loss_of_content(
        self, batch: Batch, content: Content, *, generator: torch.Generator | None = None
    ) -> Loss:
        """As `loss`, of content that was encoded before: its front ends are frozen, so their
        features can be stored.

        Args:
            batch: with target mel; its sources are not read.
            content: of the sources.
            generator: of order, dropout, noise and times, on any device; None: torch's global one.
        """
        if batch.mel is None:
            raise ValueError("the batch has no target mel; make it by prepare(..., targets=True)")
        context, memory = self.condition(batch, content, generator)
        mask = mask_if_padded(batch.mel_lengths, batch.mel.shape[2])
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
            check_speech(source, "source", SHORTEST_SOURCE)
        cut: list[Audio] = []
        for reference in references:
            check_speech(reference, "reference", SHORTEST_REFERENCE)
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
        """The condition of the flow's network.

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
        mask = mask_if_padded(batch.reference_mel_lengths, mel.shape[2])
        tokens = timbre_tokens(mel, vector, mask, shuffle=self.shuffle, generator=generator)

        memory = None
        if self.memory is not None:
            reference = tokens
            if self.shuffle and not self.shuffle_memory:
                reference = timbre_tokens(mel, vector, mask, shuffle=False)
            memory = self.memory(reference.to(_dtype(self.memory)), mask)
            memory = memory.to(_dtype(self.estimator))

        features = content.features
        if self.timbre is not None:
            dtype = _dtype(self.timbre)
            features = self.timbre(features.to(dtype), content.mask, tokens.to(dtype), mask)
        elif vector is not None:
            repeated = vector[:, None].expand(-1, features.shape[1], -1)
            features = torch.cat([features, repeated.to(features)], dim=-1)
        frames = int(batch.mel_lengths.max())
        new_mask = mask_if_padded(batch.mel_lengths, frames)
        if new_mask is None:
            new_mask = torch.ones(len(features), frames, dtype=torch.bool, device=features.device)
        context = resize_frames(features, content.mask, new_mask)
        return context.to(_dtype(self.estimator)), memory

    def _sample(
        self, noise: Tensor, context: Tensor, memory: Tensor | None, lengths: list[int]
    ) -> Tensor:
        """noise (B, n_mels, L), context (B, L, C), memory (B, C') -> normalised mel (B, n_mels, L).

        Of long sources, the velocity is that of overlapping chunks, faded into one another at every
        step: all chunks walk one path from one noise, so they never come apart.
        """
        estimator = self.estimator
        batch = len(noise)
        pieces = cut_pieces(lengths, self.mel_chunks, noise.device)

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

    def _sent(self, x: Tensor) -> Tensor:
        """x on the model's device."""
        return x.to(self.device)

    def _waveforms(self, speech: Sequence[Audio], sample_rate: int) -> tuple[Tensor, Tensor]:
        """Padded waveforms (B, T) at `sample_rate`, lengths (B,), on the model's device."""
        samples = [resample(s.samples, s.sample_rate, sample_rate) for s in speech]
        lengths = torch.tensor([len(s) for s in samples])
        return pad_rows(samples).to(self.device), lengths.to(self.device)

    def _mels(self, speech: Sequence[Audio]) -> tuple[Tensor, Tensor]:
        """Log mels (B, n_mels, L) and their lengths (B,) in frames."""
        waveform, lengths = self._waveforms(speech, self.mel.sample_rate)
        return self.mel(waveform, lengths), self.mel.frames(lengths)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
