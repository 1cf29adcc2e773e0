"""Takin-VC at the speed of a GPU: `accelerate` prepares the parts of a model for inference.

What is done (docs/model/inference-speed.md has the measurements):
    Graphs. Each part runs as one CUDA graph for each shape. Lengths are padded to buckets, so that
        a few graphs serve all lengths; masks or lengths keep the padding out.
    Streams. The two front ends run side by side, and the voiceprint at the same time.
    Flow and vocoder. Written by hand (`takin_vc.fast.flow`, `takin_vc.fast.vocoder`). The other
        parts are the plain ones, but for one convolution (`takin_vc.fast.wavlm`).
    Input. Recordings are resampled on the GPU, by soxr's own filter (`takin_vc.fast.resample`).
        Between the checks of a recording and its waveform, the processor does not wait for the GPU.
    Precision. 16-bit products with 32-bit sums in timbre, memory, flow and vocoder; the flow's
        state in 32 bits. 32 bits in the self-supervised front end and where its codes are chosen:
        between two codes nothing is small. TF32 in the recogniser and the voiceprint.

On the CPU the same code runs without graphs and kernels: so it is tested.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from takin_vc.content import Content, HybridContentEncoder
from takin_vc.estimator import UNetEstimator
from takin_vc.fast.flow import FastEstimator, FastFlow
from takin_vc.fast.graphs import FRAME_BUCKET, Outputs, Replayed, pad_to
from takin_vc.fast.resample import Resampler
from takin_vc.fast.vocoder import FastBigVGAN
from takin_vc.fast.wavlm import prepare_wavlm
from takin_vc.frontends.base import FrameFeatures
from takin_vc.frontends.hybridformer import HybridFormerPPG
from takin_vc.frontends.wavlm import WavLMFeatures
from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.inputs import Audio, Batch, Speech
from takin_vc.memory import TimbreMemory
from takin_vc.model import TakinVC
from takin_vc.timbre import CAMPPlusVoiceprint, ContextAwareTimbre, MelVoiceprint
from takin_vc.vocoder import BigVGAN, Vocoder

SAMPLE_BUCKET = 16000  # samples: 1 s for the front ends
CONTENT_BUCKET = 25  # content frames: 1 s
PARTS = ("content", "voiceprint", "timbre", "memory", "flow", "vocoder")


def accelerate(
    model: TakinVC, *, dtype: torch.dtype = torch.bfloat16, parts: Collection[str] = PARTS
) -> "FastTakinVC":
    """The same model for fast inference: for `convert` and `convert_batch` alone.

    `model` stays as it is, and shares with it what is not replaced. The first conversion of a new
    length (to about a second) and batch size takes seconds longer.

    Args:
        model: on the device where it is to run, in evaluation mode.
        dtype: of the products in timbre, memory, flow and vocoder: torch.bfloat16, torch.float16,
            or torch.float32 to compare.
        parts: which of `PARTS` are replaced; the others, and their precision, stay the model's.

    Raises:
        ValueError: if the model is in training mode, or there is no such part.
    """
    if model.training:
        raise ValueError("accelerate needs the model in evaluation mode: call eval() first")
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    fast = FastTakinVC.__new__(FastTakinVC)
    fast.__dict__.update(model.__dict__)
    fast._modules = dict(model._modules)
    fast.resampler = Resampler() if model.device.type == "cuda" else None
    if "content" in parts and all(map(_can_replay, (model.content.ssl, model.content.ppg))):
        fast.content = cast(HybridContentEncoder, FastContent(model.content))
    if "voiceprint" in parts and isinstance(model.voiceprint, CAMPPlusVoiceprint | MelVoiceprint):
        fast.voiceprint = RecordedVoiceprint(model.voiceprint)
    if "timbre" in parts and model.timbre is not None:
        fast.timbre = cast(
            ContextAwareTimbre, RecordedPart(model.timbre, dtype, CONTENT_BUCKET, FRAME_BUCKET)
        )
    if "memory" in parts and model.memory is not None:
        fast.memory = cast(TimbreMemory, RecordedPart(model.memory, dtype, FRAME_BUCKET))
    if "flow" in parts:
        estimator = FastEstimator(model.estimator, dtype)
        fast.estimator = cast(UNetEstimator, estimator)
        fast.flow = FastFlow(model.flow, estimator)
    if "vocoder" in parts:
        fast.vocoder = cast(
            Vocoder,
            FastBigVGAN(model.vocoder, dtype)
            if isinstance(model.vocoder, BigVGAN)
            else RecordedVocoder(model.vocoder),
        )
    return fast.eval()


class FastTakinVC(TakinVC):
    """What `accelerate` makes.

    Attributes:
        resampler: of recordings on the model's device; None leaves them to soxr on the CPU.
    """

    resampler: Resampler | None

    def prepare(
        self,
        sources: Sequence[Audio],
        references: Sequence[Audio],
        *,
        targets: bool = False,
        start_voiceprint: bool = True,
    ) -> Batch:
        """As `TakinVC.prepare`, on the device; the voiceprint starts beside what follows.

        Args:
            sources: as there.
            references: as there.
            targets: as there.
            start_voiceprint: whether the voiceprint starts; else it is computed when it is asked.
        """
        if self.resampler is not None:
            sources, references = (
                [
                    Speech(speech.samples.to(self.device), speech.sample_rate)
                    for speech in recordings
                ]
                for recordings in (sources, references)
            )
        with tf32(False):
            batch = super().prepare(sources, references, targets=targets)
        frames = [len(s.samples) * self.sample_rate // s.sample_rate for s in sources]
        if len(set(frames)) == 1:  # lengths on the CPU can be read without waiting for the device
            batch = replace(batch, mel_lengths=self.mel.frames(torch.tensor(frames)))
        if start_voiceprint and isinstance(self.voiceprint, RecordedVoiceprint):
            self.voiceprint.begin(batch.reference, batch.reference_lengths)
        return batch

    def _sent(self, x: Tensor) -> Tensor:
        """As `TakinVC._sent`, without waiting for what the device computes meanwhile."""
        if self.device.type != "cuda":
            return super()._sent(x)
        return x.pin_memory().to(self.device, non_blocking=True)

    def _waveforms(self, speech: Sequence[Audio], sample_rate: int) -> tuple[Tensor, Tensor]:
        """As `TakinVC._waveforms`, resampled on the device."""
        resampler = self.resampler
        if resampler is None or not all(
            resampler.supports(s.sample_rate, sample_rate) for s in speech
        ):
            return super()._waveforms(speech, sample_rate)
        rows = [
            resampler(s.samples.detach().float()[None], s.sample_rate, sample_rate)[0]
            for s in speech
        ]
        lengths = torch.tensor([len(row) for row in rows])
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), self._sent(lengths)

    def _mels(self, speech: Sequence[Audio]) -> tuple[Tensor, Tensor]:
        """As `TakinVC._mels`; lengths of one recording stay on the CPU."""
        if len(speech) > 1:
            return super()._mels(speech)
        waveform, _ = self._waveforms(speech, self.mel.sample_rate)
        return self.mel(waveform), self.mel.frames(torch.tensor([waveform.shape[1]]))

    def _sample(
        self, noise: Tensor, context: Tensor, memory: Tensor | None, lengths: list[int]
    ) -> Tensor:
        """As `TakinVC._sample`; sources of one length in one chunk need no masks."""
        if len(set(lengths)) > 1 or lengths[0] > self.mel_chunks.size:
            return super()._sample(noise, context, memory, lengths)

        def prepared(drop: Tensor | None) -> tuple[Any]:
            return (self.estimator.prepare(context, memory, None, drop),)

        null = None
        if self.guidance > 0:
            null = prepared(torch.ones(len(noise), dtype=torch.bool, device=noise.device))
        return self.flow.sample(
            lambda xt, t, condition: self.estimator.velocity(xt, t, condition[0]),
            noise,
            prepared(None),
            null=null,
            steps=self.steps,
            solver=self.solver,
            guidance=self.guidance,
        )


class FastContent(nn.Module):
    """The content encoder, of whole seconds. Only for evaluation.

    Args:
        content: stays as it is.
    """

    def __init__(self, content: HybridContentEncoder) -> None:
        super().__init__()
        self.part = copy.deepcopy(content).eval()
        self.name, self.dim, self.frame_rate = content.name, content.dim, content.frame_rate
        self.beside = torch.cuda.Stream() if torch.cuda.is_available() else None
        if isinstance(self.part.ssl, WavLMFeatures):
            prepare_wavlm(self.part.ssl.model)
        if isinstance(self.part.ppg, HybridFormerPPG):
            self.part.ppg.hybridformer.fuse()
        self.replay = Replayed(self._encode)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Content:
        """waveform (B, T) at 16 kHz, lengths (B,) -> Content, padded to whole seconds."""
        features, mask = self.replay(pad_to(waveform, 1, SAMPLE_BUCKET), lengths)
        return Content(features, mask, features.new_zeros(()))

    def _encode(self, waveform: Tensor, lengths: Tensor) -> Outputs:
        # Both front ends are many small kernels, which run side by side.
        here = torch.cuda.current_stream() if waveform.is_cuda else None
        if here is not None and self.beside is not None:
            self.beside.wait_stream(here)
        with torch.cuda.stream(self.beside if waveform.is_cuda else None), tf32(True):
            ppg = (None, None) if self.part.ppg is None else self.part.ppg(waveform, lengths)
        with tf32(False):
            ssl = (None, None) if self.part.ssl is None else self.part.ssl(waveform, lengths)
            if here is not None and self.beside is not None:
                here.wait_stream(self.beside)
            content = self.part.forward_features(*ssl, *ppg)
        return content.features, content.mask


def _can_replay(front_end: FrameFeatures | None) -> bool:
    """Whether a front end never waits for the device."""
    if isinstance(front_end, WavLMFeatures):
        return bool(front_end.model.config.do_stable_layer_norm)
    return front_end is None or isinstance(front_end, HybridFormerPPG | WhisperEncoderFeatures)


class RecordedVoiceprint(nn.Module):
    """A voiceprint as CUDA graphs, in TF32; references are padded to whole seconds.

    Args:
        voiceprint: stays as it is.
    """

    def __init__(self, voiceprint: CAMPPlusVoiceprint | MelVoiceprint) -> None:
        super().__init__()
        self.part = copy.deepcopy(voiceprint)
        self.dim = voiceprint.dim
        self.replay = Replayed(self._embed, alone=True)
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None
        self.begun: tuple[Tensor, Tensor] | None = None

    def begin(self, waveform: Tensor, lengths: Tensor) -> None:
        """Starts on another stream; `forward` of the same tensor waits for it."""
        if waveform.is_cuda and self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                vector = self.replay(pad_to(waveform, 1, SAMPLE_BUCKET), lengths)[0]
            self.begun = waveform, vector

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """waveform (B, T) at 16 kHz, lengths (B,) in samples -> (B, dim)."""
        if self.begun is not None and self.begun[0] is waveform and self.stream is not None:
            stream, vector = torch.cuda.current_stream(), self.begun[1]
            self.begun = None
            stream.wait_stream(self.stream)
            vector.record_stream(stream)
            return vector
        return self.replay(pad_to(waveform, 1, SAMPLE_BUCKET), lengths)[0]

    def _embed(self, waveform: Tensor, lengths: Tensor) -> Outputs:
        with tf32(True):
            return (self.part(waveform, lengths),)


class RecordedPart(nn.Module):
    """The cross-attention or the memory as CUDA graphs; its inputs are padded to buckets.

    Args:
        part: stays as it is.
        dtype: of its products.
        buckets: of the lengths of its inputs, in frames.
    """

    def __init__(
        self, part: ContextAwareTimbre | TimbreMemory, dtype: torch.dtype, *buckets: int
    ) -> None:
        super().__init__()
        self.part = copy.deepcopy(part).to(dtype)
        self.dim = part.dim
        self.buckets = buckets
        self.replay = Replayed(lambda *inputs: (self.part(*inputs),))

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """As the part, whose inputs are pairs: frames (B, L, C), and their mask (B, L) or None."""
        padded: list[Tensor] = []
        for x, mask, bucket in zip(inputs[::2], inputs[1::2], self.buckets, strict=True):
            assert x is not None
            if mask is None:
                mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            padded += [pad_to(x, 1, bucket), pad_to(mask, 1, bucket)]
        output = self.replay(*padded)[0]
        assert inputs[0] is not None
        return output if output.ndim == 2 else output[:, : inputs[0].shape[1]]


class RecordedVocoder(Vocoder):
    """A vocoder as CUDA graphs, in TF32; mels are padded to buckets.

    Args:
        vocoder: stays as it is.
    """

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.part = copy.deepcopy(vocoder)
        self.sample_rate, self.n_mels = vocoder.sample_rate, vocoder.n_mels
        self.hop_length, self.reach_frames = vocoder.hop_length, vocoder.reach_frames
        self.replay = Replayed(self._speak)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """As the vocoder: mel (B, n_mels, L), lengths (B,) in frames -> (B, T)."""
        batch, _, frames = mel.shape
        if lengths is None:
            lengths = torch.full((batch,), frames, device=mel.device)
        waveform = self.replay(pad_to(mel.float(), 2, FRAME_BUCKET), lengths)[0]
        return waveform[:, : frames * self.hop_length]

    def _speak(self, mel: Tensor, lengths: Tensor) -> Outputs:
        with tf32(True):
            return (self.part(mel, lengths),)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether 32-bit products and convolutions may round their factors to 10 bits.

    torch has an older and a newer setting of the same, and refuses to read the older one where
    they differ. So the newer one is read, and both are set.
    """
    before = [part.fp32_precision for part in _rounding_parts()]
    _set_precisions(["tf32" if allowed else "ieee"] * len(before))
    try:
        yield
    finally:
        _set_precisions(before)


def _rounding_parts() -> tuple[Any, ...]:
    """Matrix products, cuDNN's convolutions and its recurrent networks."""
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn


def _set_precisions(precisions: list[str]) -> None:
    """Sets those of `_rounding_parts` by the older and the newer setting."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    matmul.allow_tf32, cudnn.allow_tf32 = (value == "tf32" for value in precisions[:2])
    for part, precision in zip(_rounding_parts(), precisions, strict=True):
        part.fp32_precision = precision
