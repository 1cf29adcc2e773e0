"""Prepares the features of a training: each recording at several speeds, its mel, and the features
of the frozen front ends.

A higher speed raises pitch, formants and tempo together: to the model it is another speaker with
the same words. All versions of a recording have the same words at proportional times. So the
content of one version can be trained with the sound of another: what differs between them, the
voice, does not help. Conversions of a recording to other speakers' voices serve likewise
(`takin_vc.train.data.voices`): only the features of the front ends are kept of them.

Features are computed once, in pieces of some hundred recordings; a killed run resumes after the
last finished piece. `takin_vc.train.data.versions` loads them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from takin_vc.frontends.base import SAMPLE_RATE, FrameFeatures
from takin_vc.mel import LogMel
from takin_vc.tensors import fingerprint, write_tensors
from takin_vc.train.data.batches import by_length, generator
from takin_vc.train.data.corpus import CorpusError, TrainingRecording, read, resampled
from takin_vc.train.data.noise import VERSION as NOISE_VERSION
from takin_vc.train.data.noise import disturbed
from takin_vc.train.data.versions import PIECE, piece
from takin_vc.train.data.voices import OtherVoices


def prepare(
    recordings: Sequence[TrainingRecording],
    folder: Path,
    *,
    mel: LogMel,
    front_ends: dict[str, FrameFeatures],
    speeds: Sequence[float] = (1.0,),
    sound_speeds: Sequence[float] = (),
    noise: float = 0.0,
    voices: OtherVoices | None = None,
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
        voices: converts the recordings at speed 1 to other voices; of the conversions only the
            features of the front ends are stored.
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
    if voices is not None:
        settings["voices"] = voices.identity
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
            at_speeds = {piece(folder, f"speed-{speed:g}", first): speed for speed in every}
            count = 0 if voices is None else voices.count
            converted = {piece(folder, f"voice-{k}", first): k for k in range(count)}
            missing = [path for path in (*at_speeds, *converted) if not path.is_file()]
            if not missing:
                continue
            here = recordings[first : first + PIECE]
            decoded = list(pool.map(lambda r: read(r.path, mel.sample_rate), here))
            for path in missing:
                tensors: dict[str, Tensor] = {}
                speed = at_speeds.get(path)
                if speed is None:
                    assert voices is not None
                    inputs = voices.convert(decoded, first, converted[path])
                else:
                    inputs = waves = list(pool.map(partial(at_speed, speed=speed), decoded))
                    if noise and speed in speeds and front_ends:
                        seeds = [(first + i, round(1000 * speed)) for i in range(len(waves))]
                        rngs = [generator(0, *seed) for seed in seeds]
                        add = partial(
                            disturbed, sample_rate=mel.sample_rate, others=waves, share=noise
                        )
                        inputs = list(pool.map(add, waves, rngs))
                    tensors = _sound(waves, mel, batch_seconds, device)
                if speed is None or speed in speeds:
                    tensors |= _content(inputs, mel.sample_rate, front_ends, batch_seconds, device)
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


def at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """(T,) as (T / speed,): `speed` times as fast, and as high."""
    return resampled(samples, speed, 1.0)


@torch.inference_mode()
def _sound(
    waves: list[np.ndarray], mel: LogMel, batch_seconds: float, device: torch.device | str
) -> dict[str, Tensor]:
    """The streams "wave" and "mel" of some recordings, in their order."""
    kept = [torch.from_numpy(wave).clamp(-1, 32767 / 32768) for wave in waves]
    mels = [torch.empty(0)] * len(waves)
    for batch in by_length(waves, batch_seconds * mel.sample_rate):
        padded, lengths = _padded([kept[i] for i in batch], device)
        frames, counts = mel(padded, lengths).transpose(1, 2), mel.frames(lengths).tolist()
        for i, row, count in zip(batch, frames.half().cpu(), counts, strict=True):
            mels[i] = row[:count]
    return _joined({"wave": [(wave * 32768).round().short() for wave in kept], "mel": mels})


@torch.inference_mode()
def _content(
    waves: list[np.ndarray],
    sample_rate: int,
    front_ends: dict[str, FrameFeatures],
    batch_seconds: float,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """The streams of the front ends of some waves, in their order."""
    streams = {name: [torch.empty(0)] * len(waves) for name in front_ends}
    for batch in by_length(waves, batch_seconds * sample_rate):
        sources = [torch.from_numpy(resampled(waves[i], sample_rate, SAMPLE_RATE)) for i in batch]
        padded, lengths = _padded([x.clamp(-1, 32767 / 32768) for x in sources], device)
        for name, front_end in front_ends.items():
            features, mask = front_end(padded, lengths)
            counts = mask.sum(1).tolist()
            for i, row, count in zip(batch, features.half().cpu(), counts, strict=True):
                streams[name][i] = row[:count]
    return _joined(streams)


def _joined(streams: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """The rows of each stream one after another, and their lengths."""
    tensors = {}
    for name, rows in streams.items():
        tensors[name] = torch.cat(rows)
        tensors[f"{name}.lengths"] = torch.tensor([len(row) for row in rows])
    return tensors


def _padded(rows: list[Tensor], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Rows (B, T) with zeros behind them, and their lengths (B,), on the device."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device), lengths


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
            if old.get(key) != settings[key] and (key != "voices" or key in old):
                raise CorpusError(
                    f"{path.parent} holds features of other settings ({key}: {old.get(key)!r}, now "
                    f"{settings[key]!r}); name another folder (features.folder=...) or remove it"
                )
        # Features of other speeds, front ends and voices may stay in the folder.
        settings = old | {"speeds": list(dict.fromkeys([*old["speeds"], *settings["speeds"]]))}
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    temporary.replace(path)
