"""The versions of the recordings of a training in memory, and batches of them.

Features are held in memory as a whole (the GPU's, if they fit), and a batch is a few gathers.
`takin_vc.train.data.features` computes and stores them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torchaudio.functional import resample

from takin_vc.frontends.base import SAMPLE_RATE
from takin_vc.train.data.corpus import CorpusError

PIECE = 256  # recordings
SOUND, CONTENT = ("wave", "mel"), ("ssl", "ppg")
STREAMS = (*SOUND, *CONTENT)


@dataclass(frozen=True, eq=False)
class Versions:
    """All versions of all recordings, one after another.

    Row r of a stream is recording `r % recordings` in version `r // recordings` of the stream.
    The versions of "ssl" and "ppg" are the first of those of "wave" and "mel", and behind them
    conversions to other voices at speed 1, of which there is no sound.

    Attributes:
        recordings: how many.
        speeds: of the versions of "wave" and "mel", 1.0 among them.
        content_speeds: of the versions of "ssl" and "ppg".
        streams: "wave" (N,) int16 at `sample_rate`, and "mel", "ssl", "ppg", each (N, C) float16,
            if they are stored.
        starts: of each row in each stream, (rows + 1,) int64, on the CPU.
        sample_rate: of the waves, in Hz.
        frame_rates: of the other streams, in Hz.
        device: of the batches; the streams may be elsewhere.
    """

    recordings: int
    speeds: tuple[float, ...]
    content_speeds: tuple[float, ...]
    streams: dict[str, Tensor]
    starts: dict[str, Tensor]
    sample_rate: int
    frame_rates: dict[str, float]
    device: torch.device

    def lengths(self, stream: str) -> Tensor:
        """Of every row, in frames or samples of the stream: (rows,) int64."""
        return self.starts[stream].diff()

    def seconds(self) -> np.ndarray:
        """Of every row, (speeds, recordings), float64."""
        lengths = self.lengths("wave").numpy() / self.sample_rate
        return lengths.reshape(len(self.speeds), self.recordings)

    def wave(self, rows: np.ndarray, first: np.ndarray, samples: int) -> Tensor:
        """(B, samples) float32 of rows (B,) from samples `first` (B,) on; zeros beyond them."""
        index, inside = self._index("wave", rows, first, samples)
        samples_of = self.streams["wave"][index].to(self.device)
        return samples_of.float().div_(32768).mul_(inside.to(self.device))

    def crops(
        self,
        version: np.ndarray,
        recording: np.ndarray,
        start: np.ndarray,
        samples: int,
        margin: int = 0,
    ) -> Tensor:
        """The crops that a `CropSampler` drew: (B, margin + samples + margin) float32.

        Args:
            version: speeds, indices, (B,).
            recording: indices, (B,).
            start: of the crops, in seconds of the versions, (B,).
            samples: of a crop.
            margin: samples more on either side; zeros beyond the ends.
        """
        first = np.floor(start * self.sample_rate).astype(np.int64)
        rows = version * self.recordings + recording
        return self.wave(rows, first - margin, samples + 2 * margin)

    def frames(self, stream: str, rows: np.ndarray, first: np.ndarray, count: int) -> Tensor:
        """(B, count, C) of rows (B,) from frames `first` (B,) on; zeros beyond their ends."""
        index, inside = self._index(stream, rows, first, count)
        return (self.streams[stream][index] * inside[:, :, None]).to(self.device)

    def stretched(
        self, stream: str, rows: np.ndarray, start: np.ndarray, step: np.ndarray, count: int
    ) -> Tensor:
        """Interpolated frames: (B, count, C) at start + k step, in frames of the row."""
        data, where = self.streams[stream], self.streams[stream].device
        begin, last = self._bounds(stream, rows)
        steps = torch.arange(count, device=where, dtype=torch.float64)
        position = to_device(np.stack([start, step]), where)[:, :, None]
        position = position[0] + position[1] * steps
        position = torch.minimum(position.clamp(min=0), last)
        left = position.floor()
        weight = (position - left).to(data.dtype)[:, :, None]
        right = torch.minimum(left + 1, last).long()
        between = torch.lerp(data[begin + left.long()], data[begin + right], weight)
        return between.to(self.device)

    def _bounds(self, stream: str, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """First and last frame of each row, (B, 1), by the stream; the last counted in the row."""
        begin, length = self.starts[stream][rows], self.lengths(stream)[rows]
        bounds = to_device(torch.stack([begin, length - 1]), self.streams[stream].device)
        return bounds[0][:, None], bounds[1][:, None]

    def _index(
        self, stream: str, rows: np.ndarray, first: np.ndarray, count: int
    ) -> tuple[Tensor, Tensor]:
        # Computed on the stream's device: a batch of speech has millions of samples.
        begin, last = self._bounds(stream, rows)
        position = to_device(first, begin.device)[:, None]
        position = position + torch.arange(count, device=begin.device)
        inside = (position >= 0) & (position <= last)
        return torch.where(inside, begin + position, 0), inside


def load_versions(
    folder: Path,
    *,
    streams: Sequence[str] = STREAMS,
    speeds: Sequence[float] | None = None,
    sound_speeds: Sequence[float] = (),
    voices: int = 0,
    device: torch.device | str = "cpu",
    resident: bool = True,
) -> Versions:
    """Loads what `takin_vc.train.data.features.prepare` stored.

    Args:
        folder: of the pieces.
        streams: the streams to load.
        speeds: the speeds to load; None: all.
        sound_speeds: further speeds, of which only "wave" and "mel" are loaded.
        voices: how many conversions of each recording, of which only "ssl" and "ppg" are loaded.
        device: of the batches.
        resident: hold the streams there too; else in the main memory.

    Raises:
        CorpusError: if a piece is missing.
    """
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    content_speeds = tuple(settings["speeds"] if speeds is None else speeds)
    wanted = (*content_speeds, *sound_speeds)
    sound, content = ({name for name in streams if name in n} for n in (SOUND, CONTENT))
    pieces = [
        (path, sound | content if speed in content_speeds else sound)
        for speed in wanted
        for path in _pieces(folder, f"speed-{speed:g}")
    ]
    pieces += [(path, content) for k in range(voices) for path in _pieces(folder, f"voice-{k}")]
    if not pieces:
        raise CorpusError(f"{folder}: no features at speeds {list(wanted)}")

    rows = 0
    sizes: dict[str, list[Tensor]] = {}
    empty: dict[str, Tensor] = {}
    for path, names in pieces:
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            if "wave.lengths" in stored:
                rows += len(file.get_tensor("wave.lengths"))
            for name in names & stored:
                sizes.setdefault(name, []).append(file.get_tensor(f"{name}.lengths"))
                empty[name] = file.get_slice(name)[:0]
    starts = {
        name: torch.cat([torch.zeros(1, dtype=torch.long), torch.cat(lengths).cumsum(0)])
        for name, lengths in sizes.items()
    }
    # Copied piece by piece, so that nothing is in memory twice.
    where = device if resident else "cpu"
    joined = {
        name: empty[name].new_empty((int(starts[name][-1]), *empty[name].shape[1:]), device=where)
        for name in streams
        if name in empty
    }
    filled = dict.fromkeys(joined, 0)
    for path, names in pieces:
        with safe_open(path, framework="pt") as file:
            for name in names & set(file.keys()):
                part = file.get_tensor(name)
                joined[name][filled[name] : filled[name] + len(part)] = part
                filled[name] += len(part)
    rates = {"mel": settings["sample_rate"] / settings["hop_length"]}
    rates |= {name: settings[name]["frame_rate"] for name in joined if name in CONTENT}
    return Versions(
        rows // len(wanted),
        wanted,
        content_speeds + (1.0,) * voices,
        joined,
        starts,
        int(settings["sample_rate"]),
        rates,
        torch.device(device),
    )


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copies values from the main memory to the device, without waiting for it.

    `Tensor.to` waits until the GPU has finished all its work. A few such waits in each step, and
    the CPU could never prepare a step while the GPU computes the one before.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def at_16_khz(wave: Tensor, sample_rate: int) -> Tensor:
    """Waves (B, T) at `sample_rate` as the front ends take them, on their device."""
    return wave if sample_rate == SAMPLE_RATE else resample(wave, sample_rate, SAMPLE_RATE)


def piece(folder: Path, version: str, first: int) -> Path:
    """The file of a version's recordings from number `first` on."""
    return folder / f"{version}-{first:07d}.safetensors"


def _pieces(folder: Path, version: str) -> list[Path]:
    paths = sorted(folder.glob(f"{version}-*.safetensors"))
    for number, path in enumerate(paths):
        if path != piece(folder, version, number * PIECE):
            raise CorpusError(f"{folder}: lacks {piece(folder, version, number * PIECE).name}")
    return paths
