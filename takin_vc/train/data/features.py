"""Prepares and loads the features of a training: each recording at several speeds, its mel, and the
features of the frozen front ends.

A higher speed raises pitch, formants and tempo together: to the model it is another speaker with
the same words. All versions of a recording have the same words at proportional times. So the
content of one version can be trained with the sound of another: what differs between them, the
voice, does not help.

Features are computed once, in pieces of some hundred recordings; a killed run resumes after the
last finished piece. Then they are held in memory as a whole (the GPU's, if they fit), and a batch
is a few gathers.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torchaudio.functional import resample

from takin_vc.frontends.base import SAMPLE_RATE, FrameFeatures
from takin_vc.mel import LogMel
from takin_vc.tensors import fingerprint, write_tensors
from takin_vc.train.data.batches import generator
from takin_vc.train.data.corpus import CorpusError, TrainingRecording
from takin_vc.train.data.noise import VERSION as NOISE_VERSION
from takin_vc.train.data.noise import disturbed

PIECE = 256  # recordings
STREAMS = ("wave", "mel", "ssl", "ppg")


@dataclass(frozen=True, eq=False)
class Versions:
    """All versions of all recordings, one after another.

    Row r of a stream is recording `r % recordings` at speed `r // recordings`. "ssl" and "ppg"
    exist only for the first `content_speeds` speeds.

    Attributes:
        recordings: how many.
        speeds: of the versions, 1.0 among them.
        content_speeds: how many of the speeds have features of the front ends.
        streams: "wave" (N,) int16 at `sample_rate`, and "mel", "ssl", "ppg", each (N, C) float16,
            if they are stored.
        starts: of each row in each stream, (rows + 1,) int64, on the CPU.
        sample_rate: of the waves, in Hz.
        frame_rates: of the other streams, in Hz.
        device: of the batches; the streams may be elsewhere.
    """

    recordings: int
    speeds: tuple[float, ...]
    content_speeds: int
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


def prepare(
    recordings: Sequence[TrainingRecording],
    folder: Path,
    *,
    mel: LogMel,
    front_ends: dict[str, FrameFeatures],
    speeds: Sequence[float] = (1.0,),
    sound_speeds: Sequence[float] = (),
    noise: float = 0.0,
    batch_seconds: float = 600.0,
    threads: int = 8,
    device: torch.device | str = "cpu",
) -> None:
    """Computes and stores the pieces that are missing.

    Args:
        recordings: in the order of their rows.
        folder: of the pieces; one set of settings a folder.
        mel: its sample rate is that of the waves.
        front_ends: "ssl" and "ppg", those whose features are to be kept.
        speeds: each more than 0; 1.0 must be among them.
        sound_speeds: further speeds, without features of the front ends.
        noise: share of the versions whose front ends get the speech with noise and reverberation
            (`disturbed`); "wave" and "mel" stay clean. The noise is the same every time.
        batch_seconds: of padded speech that the front ends get at a time.
        threads: that decode and resample.
        device: where the front ends compute; they are moved there.

    Raises:
        CorpusError: if a file cannot be read, the speeds or the noise make no sense, or the folder
            holds features of other settings.
    """
    every = [*speeds, *sound_speeds]
    if 1.0 not in speeds or min(every) <= 0 or len(set(every)) < len(every):
        raise CorpusError(
            f"speeds ({list(speeds)}, {list(sound_speeds)}) must be positive and differ, with 1.0 "
            "among the first"
        )
    if not isinstance(noise, int | float) or not 0 <= noise <= 1:
        raise CorpusError(f"noise ({noise!r}) must be a number from 0 to 1")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "recordings": hashlib.sha256(
            "\n".join(r.utterance_id for r in recordings).encode()
        ).hexdigest(),
        "speeds": every,
        "sample_rate": mel.sample_rate,
        "hop_length": mel.hop_length,
        "n_mels": mel.n_mels,
        "noise": [noise, NOISE_VERSION] if noise else None,
        **{name: _identity(part) for name, part in front_ends.items()},
    }
    _same_settings(folder / "settings.json", settings)
    for part in (mel, *front_ends.values()):
        if isinstance(part, nn.Module):
            part.to(device).eval()
    with (
        _threads_of_torch(1 if torch.device(device).type == "cuda" else None),
        ThreadPoolExecutor(threads) as pool,
        ThreadPoolExecutor(1) as writer,
    ):
        written: Future[None] | None = None
        for first in range(0, len(recordings), PIECE):
            paths = {speed: _piece(folder, speed, first) for speed in every}
            paths = {speed: path for speed, path in paths.items() if not path.is_file()}
            if not paths:
                continue
            here = recordings[first : first + PIECE]
            decoded = list(pool.map(lambda r: read(r.path, mel.sample_rate), here))
            for speed, path in paths.items():
                waves = list(pool.map(lambda x, s=speed: at_speed(x, s), decoded))
                active = front_ends if speed in speeds else {}
                inputs = waves
                if active and noise:
                    rngs = [generator(0, first + i, round(1000 * speed)) for i in range(len(waves))]
                    add = partial(disturbed, sample_rate=mel.sample_rate, others=waves, share=noise)
                    inputs = list(pool.map(add, waves, rngs))
                tensors = _streams(waves, inputs, mel, active, batch_seconds, device)
                if written is not None:
                    written.result()
                written = writer.submit(write_tensors, tensors, path)
        if written is not None:
            written.result()


@contextmanager
def _threads_of_torch(count: int | None) -> Iterator[None]:
    """Sets how many threads torch uses in each thread of Python; None changes nothing, since front
    ends on the CPU need all of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(
    folder: Path,
    *,
    streams: Sequence[str] = STREAMS,
    speeds: Sequence[float] | None = None,
    sound_speeds: Sequence[float] = (),
    device: torch.device | str = "cpu",
    resident: bool = True,
) -> Versions:
    """Loads what `prepare` stored.

    Args:
        folder: of the pieces.
        streams: the streams to load.
        speeds: the speeds to load; None: all.
        sound_speeds: further speeds, of which only "wave" and "mel" are loaded.
        device: of the batches.
        resident: hold the streams there too; else in the main memory.

    Raises:
        CorpusError: if a piece is missing.
    """
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    content_speeds = tuple(settings["speeds"] if speeds is None else speeds)
    wanted = (*content_speeds, *sound_speeds)
    paths = [(speed, path) for speed in wanted for path in _pieces(folder, speed)]
    if not paths:
        raise CorpusError(f"{folder}: no features at speeds {list(wanted)}")

    def wanted_of(names: Sequence[str], speed: float) -> list[str]:
        content = () if speed in content_speeds else ("ssl", "ppg")
        return [name for name in streams if name in names and name not in content]

    rows = 0
    sizes: dict[str, list[Tensor]] = {}
    empty: dict[str, Tensor] = {}
    for speed, path in paths:
        with safe_open(path, framework="pt") as file:
            rows += len(file.get_tensor("wave.lengths"))
            for name in wanted_of(list(file.keys()), speed):
                sizes.setdefault(name, []).append(file.get_tensor(f"{name}.lengths"))
                empty[name] = file.get_slice(name)[:0]
    starts = {
        name: torch.cat([torch.zeros(1, dtype=torch.long), torch.cat(lengths).cumsum(0)])
        for name, lengths in sizes.items()
    }
    # Copied piece by piece, so that nothing is in memory twice.
    where = device if resident else "cpu"
    joined = {
        name: tensor.new_empty((int(starts[name][-1]), *tensor.shape[1:]), device=where)
        for name, tensor in empty.items()
    }
    filled = dict.fromkeys(joined, 0)
    for speed, path in paths:
        with safe_open(path, framework="pt") as file:
            for name in wanted_of(list(file.keys()), speed):
                piece = file.get_tensor(name)
                joined[name][filled[name] : filled[name] + len(piece)] = piece
                filled[name] += len(piece)
    rates = {"mel": settings["sample_rate"] / settings["hop_length"]}
    rates |= {name: settings[name]["frame_rate"] for name in joined if name in ("ssl", "ppg")}
    return Versions(
        rows // len(wanted),
        wanted,
        len(content_speeds),
        joined,
        starts,
        int(settings["sample_rate"]),
        rates,
        torch.device(device),
    )


def read(path: Path, sample_rate: int) -> np.ndarray:
    """A recording, mono, at `sample_rate`: (T,) float32.

    Raises:
        CorpusError: if it cannot be decoded, or is empty.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: cannot be decoded ({error})") from error
    if len(samples) == 0 or not np.isfinite(samples).all():
        raise CorpusError(f"{path}: is empty or not finite")
    mono = samples.mean(axis=1)
    return _resampled(mono, rate, sample_rate)


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copies values from the main memory to the device, without waiting for it.

    `Tensor.to` waits until the GPU has finished all its work. A few such waits in each step, and
    the CPU could never prepare a step while the GPU computes the one before.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """(T,) as (T / speed,): `speed` times as fast, and as high."""
    return _resampled(samples, speed, 1.0)


def _resampled(samples: np.ndarray, rate: float, wanted: float) -> np.ndarray:
    return samples if rate == wanted else soxr.resample(samples, rate, wanted)


def at_16_khz(wave: Tensor, sample_rate: int) -> Tensor:
    """Waves (B, T) at `sample_rate` as the front ends take them, on their device."""
    return wave if sample_rate == SAMPLE_RATE else resample(wave, sample_rate, SAMPLE_RATE)


@torch.inference_mode()
def _streams(
    waves: list[np.ndarray],
    inputs: list[np.ndarray],
    mel: LogMel,
    front_ends: dict[str, FrameFeatures],
    batch_seconds: float,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """The streams of some recordings, in their order. The front ends get `inputs`, each as long as
    its wave."""
    streams: dict[str, list[Tensor]] = {name: [] for name in ("wave", "mel", *front_ends)}
    for name in streams:
        streams[name] = [torch.empty(0)] * len(waves)
    for batch in _by_length(waves, batch_seconds * mel.sample_rate):
        kept = [torch.from_numpy(waves[i]).clamp(-1, 32767 / 32768) for i in batch]
        padded, lengths = _padded(kept, device)
        mels, counts = mel(padded, lengths).transpose(1, 2), mel.frames(lengths).tolist()
        mels = mels.half().cpu()
        for at, i in enumerate(batch):
            streams["wave"][i] = (kept[at] * 32768).round().short()
            streams["mel"][i] = mels[at, : counts[at]]
        if not front_ends:
            continue
        sources = [
            torch.from_numpy(_resampled(inputs[i], mel.sample_rate, SAMPLE_RATE)) for i in batch
        ]
        padded, lengths = _padded([x.clamp(-1, 32767 / 32768) for x in sources], device)
        for name, front_end in front_ends.items():
            features, mask = front_end(padded, lengths)
            features, counts = features.half().cpu(), mask.sum(1).tolist()
            for at, i in enumerate(batch):
                streams[name][i] = features[at, : counts[at]]
    tensors = {}
    for name, rows in streams.items():
        tensors[name] = torch.cat(rows)
        tensors[f"{name}.lengths"] = torch.tensor([len(row) for row in rows])
    return tensors


def _padded(rows: list[Tensor], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Rows (B, T) with zeros behind them, and their lengths (B,), on the device."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device), lengths


def _by_length(waves: list[np.ndarray], samples: float) -> Iterator[list[int]]:
    """Indices in batches of at most `samples` padded samples, longest first."""
    order = sorted(range(len(waves)), key=lambda i: -len(waves[i]))
    batch: list[int] = []
    for i in order:
        if batch and len(waves[batch[0]]) * (len(batch) + 1) > samples:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _identity(front_end: FrameFeatures) -> dict[str, object]:
    """Everything that stored features depend on, the weights included."""
    identity = {"name": front_end.name, "dim": front_end.dim, "frame_rate": front_end.frame_rate}
    if isinstance(front_end, nn.Module):
        identity["weights"] = fingerprint(front_end.state_dict())
    return identity


def _same_settings(path: Path, settings: dict[str, Any]) -> None:
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))
        for key in settings.keys() - {"speeds"}:
            if old.get(key) != settings[key]:
                raise CorpusError(
                    f"{path.parent} holds features of other settings ({key}: {old.get(key)!r}, now "
                    f"{settings[key]!r}); name another folder (features.folder=...) or remove it"
                )
        # Features of other speeds and other front ends may stay in the folder.
        settings = old | {"speeds": list(dict.fromkeys([*old["speeds"], *settings["speeds"]]))}
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    temporary.replace(path)


def _piece(folder: Path, speed: float, first: int) -> Path:
    return folder / f"speed-{speed:g}-{first:07d}.safetensors"


def _pieces(folder: Path, speed: float) -> list[Path]:
    paths = sorted(folder.glob(f"speed-{speed:g}-*.safetensors"))
    for number, path in enumerate(paths):
        if path != _piece(folder, speed, number * PIECE):
            raise CorpusError(f"{folder}: lacks {_piece(folder, speed, number * PIECE).name}")
    return paths
