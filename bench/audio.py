"""Audio in memory and on disk: a `Waveform` is mono samples together with their sample rate."""

import hashlib
import operator
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from bench.errors import UserError
from bench.files import replacing

# Peak below which a recording counts as silent: -70 dBFS, 10 steps of 16-bit audio.
SILENCE_PEAK = 10 ** (-70 / 20)
SHORTEST_SECONDS = 0.05  # less is no speech, and too little for the judges' analysis windows
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz; a header that gives another rate is a mistake
MOST_GROWTH = HIGHEST_RATE // LOWEST_RATE  # largest ratio of sample counts when resampling
# Digital silence as FLAC has about 300 frames a byte; speech has fewer.
MOST_FRAMES_PER_BYTE = 4096
LONGEST_OGG_PAGE = 27 + 255 + 255 * 255  # bytes
LONGEST_MP3_HEAD = 1 << 18  # bytes, with tags, in which a Xing header is looked for
# What soundfile raises for files that are not audio; TypeError for headerless ones (*.raw).
NO_AUDIO = (soundfile.LibsndfileError, RuntimeError, TypeError)


class AudioError(UserError):
    """An audio file that cannot be used; the message names the file, the fault and the way out.

    Attributes:
        fault: what is wrong with the file, without its path and without advice; by default the
            whole message.
    """

    def __init__(self, message: str, fault: str = "") -> None:
        super().__init__(message)
        self.fault = fault or message


@dataclass(frozen=True, eq=False)
class Waveform:
    """Mono audio.

    Any samples and any positive rate are accepted; `fault` says why audio cannot be judged.

    Attributes:
        samples: float32 tensor (T,) on the CPU, nominally in [-1, 1].
        sample_rate: in Hz.

    Raises:
        ValueError: if the samples are not a one-dimensional float32 CPU tensor.
    """

    samples: Tensor
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != torch.float32:
            raise ValueError(
                f"a Waveform holds float32 samples of shape (T,), "
                f"not {self.samples.dtype} of shape {tuple(self.samples.shape)}"
            )
        if self.samples.device.type != "cpu":
            raise ValueError(f"a Waveform lives on the CPU, not on {self.samples.device}")
        # Whole numbers of any kind (numpy's too) become int; 16000.0 is refused.
        object.__setattr__(self, "sample_rate", operator.index(self.sample_rate))
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, not {self.sample_rate}")

    @classmethod
    def from_numpy(cls, samples: np.ndarray, sample_rate: int) -> "Waveform":
        """A waveform from an array of shape (T,); the values are copied.

        Args:
            samples: any real dtype; converted to float32 without scaling.
            sample_rate: in Hz.
        """
        return cls(torch.from_numpy(np.array(samples, dtype=np.float32)), sample_rate)

    def numpy(self) -> np.ndarray:
        """The samples, float32 of shape (T,)."""
        return self.samples.numpy()

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def peak(self) -> float:
        """Largest magnitude; 0 for an empty waveform."""
        return float(np.abs(self.numpy()).max()) if len(self.samples) else 0.0

    @property
    def swing(self) -> float:
        """Half the distance from the lowest to the highest sample; 0 if all are equal."""
        return float(np.ptp(self.numpy())) / 2 if len(self.samples) else 0.0

    @cached_property
    def sha256(self) -> str:
        """Hash of the decoded audio: of the rate and the samples."""
        digest = hashlib.sha256(struct.pack("<q", self.sample_rate))
        digest.update(np.ascontiguousarray(self.numpy(), dtype="<f4").tobytes())
        return digest.hexdigest()

    def copy(self) -> "Waveform":
        """The same audio with copied samples; a hash that is already computed is kept."""
        copy = Waveform(self.samples.clone(), self.sample_rate)
        if "sha256" in self.__dict__:
            copy.__dict__["sha256"] = self.sha256
        return copy

    def resample(self, sample_rate: int) -> "Waveform":
        """The same audio at another rate in Hz (soxr, very high quality).

        Raises:
            ValueError: if it would have over `MOST_GROWTH` times as many samples, which no two
                usable rates need.
        """
        if sample_rate == self.sample_rate:
            return self
        if sample_rate > MOST_GROWTH * self.sample_rate:
            raise ValueError(
                f"audio cannot be resampled from {self.sample_rate} Hz to {sample_rate} Hz: "
                f"over {MOST_GROWTH} times as many samples"
            )
        samples = soxr.resample(self.numpy(), self.sample_rate, sample_rate, quality="VHQ")
        return Waveform.from_numpy(samples, sample_rate)

    def first(self, seconds: float) -> "Waveform":
        """The first `seconds`; the whole waveform if it is shorter."""
        length = round(min(seconds * self.sample_rate, len(self.samples)))
        return Waveform(self.samples[:length], self.sample_rate)

    def fault(self) -> str | None:
        """Why this audio cannot be judged, or None.

        Faults are a rate outside of `LOWEST_RATE` to `HIGHEST_RATE`, no samples, less than
        `SHORTEST_SECONDS`, NaN or infinite samples, and silence (a peak under `SILENCE_PEAK`).
        """
        if fault := _rate_fault(self.sample_rate):
            return fault
        if len(self.samples) == 0:
            return "empty: it has no samples"
        if len(self.samples) < round(SHORTEST_SECONDS * self.sample_rate):
            return f"too short: {self.seconds:.4f} s, under {SHORTEST_SECONDS} s"
        if not np.isfinite(self.numpy()).all():
            return "not finite: it has NaN or infinite samples"
        if self.peak < SILENCE_PEAK:
            return f"silent: its peak is under {20 * np.log10(SILENCE_PEAK):.0f} dBFS"
        return None

    def save(self, path: Path) -> None:
        """Writes a 16-bit PCM WAV; samples outside [-1, 1] are clipped.

        16-bit audio that was loaded is written bit for bit (libsndfile's conversion from float
        would scale it by 32767/32768). An interrupted write changes nothing.
        """
        steps = np.clip(np.round(self.numpy() * 32768.0), -32768, 32767).astype(np.int16)
        encoded = BytesIO()  # libsndfile on a file would hide that the disk is full
        soundfile.write(encoded, steps, self.sample_rate, subtype="PCM_16", format="WAV")
        with replacing(path) as temporary:
            temporary.write_bytes(encoded.getvalue())


def concatenate(waveforms: Sequence[Waveform]) -> Waveform:
    """The waveforms one after another, at the first one's sample rate."""
    rate = waveforms[0].sample_rate
    return Waveform(torch.cat([w.resample(rate).samples for w in waveforms]), rate)


def load(path: Path) -> Waveform:
    """Reads an audio file of any format that libsndfile supports; channels are averaged to mono.

    Raises:
        AudioError: if the file is missing, not audio, truncated, empty, silent or not finite, or
            its header gives a rate outside of `LOWEST_RATE` to `HIGHEST_RATE` or more samples than
            the file can hold; the header is checked before anything is decoded.
    """
    try:
        declared = _declared_wav_bytes(path)
        size = path.stat().st_size
        with soundfile.SoundFile(path) as file:
            sample_rate = file.samplerate
            if fault := _header_fault(file, size):
                raise _unusable(path, fault, "replace the file")
            samples = file.read(dtype="float32", always_2d=True)
            cut = _cut_short(file, len(samples), path, size)
    except FileNotFoundError as error:
        raise AudioError(f"{path}: no such file", "no such file") from error
    except (*NO_AUDIO, MemoryError) as error:
        if size == 0:
            raise _unusable(path, "an empty file (0 bytes)", "copy it again") from error
        fault = f"not readable as audio, or cut short ({_reason(error)})"
        raise _unusable(path, fault, "copy it again, or convert it to WAV or FLAC") from error
    if declared is not None and declared > size:
        fault = f"truncated: its header promises {declared} bytes, the file has {size}"
        raise _unusable(path, fault, "copy it again")
    if cut:
        raise _unusable(path, cut, "copy it again")
    waveform = Waveform(torch.from_numpy(samples.mean(axis=1)), sample_rate)
    if fault := waveform.fault():
        raise _unusable(path, fault, "replace the recording or leave its trials out")
    return waveform


def seconds_of(path: Path) -> float | None:
    """Duration in seconds according to the file's header; None if the file is not audio."""
    try:
        return soundfile.info(path).duration
    except NO_AUDIO:
        return None


def caution(path: Path) -> str | None:
    """A warning if the file's format lowers scores (under 16 kHz, 8-bit), or None."""
    info = soundfile.info(path)
    if info.samplerate < 16000:
        return (
            f"{path}: sampled at {info.samplerate} Hz; judges listen at 16000 Hz and score it lower"
        )
    if info.subtype in {"PCM_U8", "PCM_S8", "ULAW", "ALAW"}:
        return f"{path}: 8-bit audio ({info.subtype}); its noise lowers naturalness scores"
    return None


def _unusable(path: Path, fault: str, advice: str) -> AudioError:
    return AudioError(f"{path}: {fault}; {advice}", fault)


def _rate_fault(sample_rate: int) -> str | None:
    if LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        return None
    return f"sampled at {sample_rate} Hz, which is not from {LOWEST_RATE} to {HIGHEST_RATE} Hz"


def _header_fault(file: soundfile.SoundFile, size: int) -> str | None:
    """What in the header is impossible for an audio file of `size` bytes, or None."""
    if file.frames > size * MOST_FRAMES_PER_BYTE:
        return f"damaged: its header promises {file.frames} samples in {size} bytes"
    return _rate_fault(file.samplerate)


def _cut_short(file: soundfile.SoundFile, read: int, path: Path, size: int) -> str | None:
    """Why an MP3 or OGG file is not whole, or None: libsndfile decodes what there is of it.

    Not detected: an MP3 without a Xing header, which does not say how long it is, and an OGG file
    that ends between two pages.
    """
    if file.format == "MP3" and read < file.frames - SHORTEST_SECONDS * file.samplerate:
        promised, there = (n / file.samplerate for n in (file.frames, read))
        with path.open("rb") as opened:
            head = opened.read(LONGEST_MP3_HEAD)
        if b"Xing" in head or b"Info" in head:
            return f"truncated: its header promises {promised:.2f} s, the file has {there:.2f} s"
    if file.format == "OGG":
        with path.open("rb") as opened:
            opened.seek(max(0, size - LONGEST_OGG_PAGE))
            tail = opened.read()
        start = tail.rfind(b"OggS")
        page = tail[start:] if start >= 0 else b""
        segments = page[26] if len(page) > 26 else 0
        if len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments]):
            return "truncated: it ends within a page of the OGG stream"
    return None


def _reason(error: Exception) -> str:
    return str(error).split(": ", 1)[-1].strip().rstrip(".")


def _declared_wav_bytes(path: Path) -> int | None:
    """The file size in bytes that a RIFF/WAVE header declares, or None if it declares none."""
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return None
        file.seek(8)
        if file.read(4) != b"WAVE":
            return None
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                # 0 and 0xFFFFFFFF stand for "unknown" in streamed files.
                return None if size in (0, 0xFFFFFFFF) else file.tell() + size
            file.seek(size + size % 2, os.SEEK_CUR)
    return None
