"""Checkpoints: a folder that holds all that is needed to rebuild its model.

    config.yaml         plain values: the model's settings, what it was trained on, what is left
                        out, and the files of tensors with their SHA-256
    model.safetensors   its tensors, or several such files where they are to stay small

Public weights (WavLM, Whisper) may be left out; their hash is kept, and other weights are refused.
Loading runs no code but this package's: the YAML is read as plain values, the tensors as numbers,
and only the parts in `takin_vc.parts` can be named.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from takin_vc.config import (
    PARTS,
    ConfigError,
    build,
    build_model,
    donor,
    missing_weights,
    weight_nodes,
)
from takin_vc.model import TakinVC
from takin_vc.tensors import (
    WeightsError,
    fingerprint,
    from_8_bits,
    in_8_bits,
    load_tensors,
    read_tensors,
    reason,
    write_tensors,
)

FORMAT = 3  # 2 named classes by their dotted paths
CONFIG, TENSORS = "config.yaml", "model.safetensors"
WEIGHTS = Path(__file__).parent / "weights"  # checkpoints of this package


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_mapping_to_texts(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts([*value, *value.values()])


# What each key of the settings must hold: a check, and a description.
KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (lambda value: isinstance(value, dict), "a mapping of settings"),
    "trained_on": (_is_texts, "a list of texts such as [LibriTTS/train-clean-100]"),
    "left_out": (_is_mapping_to_texts, "a mapping of parts to hashes"),
    "facts": (lambda value: isinstance(value, dict), "a mapping"),
    "files": (_is_mapping_to_texts, "a mapping of files to hashes"),
}


@dataclass(frozen=True)
class Checkpoint:
    """A model and how it was trained.

    Attributes:
        model: in evaluation mode.
        config: its settings, what `model` is in a preset.
        trained_on: corpora and splits whose speakers it was trained on, "LibriTTS/train-clean-100".
        facts: about its training: steps, loss, commit; plain values.
    """

    model: TakinVC
    config: Mapping[str, Any]
    trained_on: frozenset[str]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    leave_out: Iterable[str] = (),
    bits: int = 32,
    file_bytes: int | None = None,
) -> None:
    """Writes the folder.

    Args:
        folder: created if missing; files of the same names are replaced.
        checkpoint: what to write.
        leave_out: names of parts with public weights (`_weights_`), such as "content.ppg", that are
            to be fetched again when the checkpoint is loaded.
        bits: of a stored weight: 32, 16, or 8 of those in matrices and 32 of the others (see
            `takin_vc.tensors.in_8_bits`). Loading gives 32-bit floats again.
        file_bytes: largest size of a file of tensors, about; None writes one file.

    Raises:
        ValueError: if a part that is left out has no public weights in the settings, or bits is
            another number.
        WeightsError: if tensors cannot be written.
    """
    if bits not in (8, 16, 32):
        raise ValueError(f"bits is {bits}; it must be 8, 16 or 32")
    model = checkpoint.model
    public = dict(weight_nodes(checkpoint.config))
    left_out = {}
    for name in leave_out:
        if name not in public:
            raise ValueError(
                f"{name!r} cannot be left out: its settings name no public weights "
                f"(those that do: {', '.join(public) or 'none'})"
            )
        left_out[name] = fingerprint(model.get_submodule(name).state_dict())
    tensors = {
        name: (tensor.half() if bits == 16 and tensor.is_floating_point() else tensor).cpu()
        for name, tensor in model.state_dict().items()
        if not any(name.startswith(f"{part}.") for part in left_out)
    }
    for name in _derived(model):
        del tensors[name]
    if bits == 8:
        tensors = in_8_bits(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, part in _files(tensors, file_bytes).items():
        write_tensors(part, folder / name)
        files[name] = _sha256(folder / name)
    config = {
        "format": FORMAT,
        "model": _plain(checkpoint.config),
        "trained_on": sorted(checkpoint.trained_on),
        "left_out": left_out,
        "facts": _plain(checkpoint.facts),
        "files": files,
    }
    write_settings(config, folder)  # last: a folder with settings has its tensors
    for old in folder.glob("model*.safetensors"):
        if old.name not in files:
            old.unlink()


def load_checkpoint(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """What `save_checkpoint` wrote.

    Args:
        folder: with `config.yaml` and `model.safetensors`.
        device: where the model is to compute.
        settings: in place of the checkpoint's, of those that need no other weights: `TakinVC`'s
            steps, solver, guidance, reference_seconds and so on.

    Raises:
        WeightsError: if a file is missing, cut short, or does not fit the other.
        ConfigError: if the settings describe no model of this version.
    """
    folder = Path(folder).expanduser()
    config = read_settings(folder)
    for missing in _missing(config, folder):
        raise missing
    model = _build(config["model"], settings or {}, folder / CONFIG)
    config["model"] |= settings or {}
    tensors = _read_files(folder, config["files"])
    public = dict(weight_nodes(config["model"]))
    for name, expected in config["left_out"].items():
        if name not in public:
            raise WeightsError(
                f"{folder / CONFIG}: left_out names {name!r}, which has no _weights_"
            )
        with _settings_of(folder / CONFIG):
            given = donor(public[name], name).state_dict()
        if fingerprint(given) != expected:
            raise WeightsError(
                f"{folder}: was made with other weights of {name} (sha256 {expected[:12]}…) than "
                f"{public[name]} gives here ({fingerprint(given)[:12]}…)"
            )
        tensors |= {f"{name}.{key}": tensor for key, tensor in given.items()}
    state = model.state_dict()
    load_tensors(model, {n: state[n] for n in _derived(model)} | tensors, folder / TENSORS)
    if model.content.quantizer is not None:
        model.content.quantizer.derive()
    return Checkpoint(
        model.to(device).eval(),
        config["model"],
        frozenset(config["trained_on"]),
        config["facts"],
    )


def shipped(*, source: str, name: str) -> nn.Module:
    """A part of a checkpoint of `takin_vc/weights`, such as its vocoder, with its weights.

    Args:
        source: name of the checkpoint's folder.
        name: of the part.

    Raises:
        WeightsError: if there is no such checkpoint or part.
    """
    folder = find_shipped(source=source)[0]
    config = read_settings(folder)
    node = config["model"].get(name)
    if name not in PARTS or node is None:
        raise WeightsError(f"{folder}: has no part {name!r}")
    with _settings_of(folder / CONFIG):
        part: nn.Module = build(node, name)
    tensors = _read_files(folder, config["files"])
    of_part = {
        n.removeprefix(f"{name}."): t for n, t in tensors.items() if n.startswith(f"{name}.")
    }
    load_tensors(part, of_part, folder / TENSORS)
    return part


def find_shipped(*, source: str) -> list[Path]:
    """The folder of `shipped`, or its WeightsError."""
    known = sorted(path.parent.name for path in WEIGHTS.glob(f"*/{CONFIG}"))
    if source not in known:
        raise WeightsError(f"no checkpoint {source!r} in {WEIGHTS}; there are {', '.join(known)}")
    return [WEIGHTS / source]


def missing_public_weights(folder: str | Path) -> list[WeightsError]:
    """What a checkpoint leaves out and this machine lacks; see `takin_vc.config.missing_weights`.

    Raises:
        WeightsError: if the folder has no settings of a checkpoint.
        ConfigError: if the settings describe no model of this version.
    """
    folder = Path(folder).expanduser()
    return _missing(read_settings(folder), folder)


def _missing(config: Mapping[str, Any], folder: Path) -> list[WeightsError]:
    with _settings_of(folder / CONFIG):
        return missing_weights(config["model"], config["left_out"])


def _build(model: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> TakinVC:
    """The model of a checkpoint's settings, some of them replaced by `settings`.

    Raises:
        ConfigError: if the settings are at fault; names the file if it is the checkpoint's.
    """
    with _settings_of(path):
        if (key := _not_finite(model)) is not None:
            raise ConfigError(f"model.{key} is not a finite number")
        if not settings:
            return build_model(model)
    try:
        return build_model({**model, **settings})
    except Exception as error:
        _build(model, {}, path)  # if it is not the checkpoint that is at fault
        raise ConfigError(str(error) if isinstance(error, ValueError) else reason(error)) from error


@contextmanager
def _settings_of(path: Path) -> Iterator[None]:
    """Turns the errors of impossible settings into one line that names the file.

    Raises:
        ConfigError: for any error but a WeightsError, which already names a file.
    """
    try:
        yield
    except WeightsError:
        raise
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{path}: its settings describe no model ({reason(error)})") from error


def _not_finite(value: Any) -> str | None:
    """The key of the first number that is infinite or none at all; keys are joined with dots."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        if (inner := _not_finite(item)) is not None:
            return f"{key}.{inner}".rstrip(".")
    return None


def _derived(model: TakinVC) -> list[str]:
    """Names of tensors that follow from others."""
    quantizer = model.content.quantizer
    return [] if quantizer is None else [f"content.quantizer.{name}" for name in quantizer.derived]


def _files(tensors: dict[str, torch.Tensor], size: int | None) -> dict[str, dict[str, Any]]:
    """Tensors by the file that they go into, in their order, each file of `size` bytes at most."""
    if size is None:
        return {TENSORS: tensors}
    parts: list[dict[str, Any]] = [{}]
    room = size
    for name, tensor in tensors.items():
        if tensor.nbytes > room and parts[-1]:
            parts.append({})
            room = size
        parts[-1][name] = tensor
        room -= tensor.nbytes
    stem = Path(TENSORS).stem
    return {f"{stem}-{i}-of-{len(parts)}.safetensors": part for i, part in enumerate(parts, 1)}


def _read_files(folder: Path, files: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """All tensors of the files, which must be the very ones that were written."""
    tensors: dict[str, torch.Tensor] = {}
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name:
            raise WeightsError(f"{folder / CONFIG}: {name!r} is not a file of this folder")
        if path.is_file() and _sha256(path) != expected:
            raise WeightsError(
                f"{path}: its sha256 is not {expected[:12]}… as {CONFIG} has it: changed or cut "
                "short; get it again"
            )
        tensors |= read_tensors(path)
    return from_8_bits(tensors)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Writes a checkpoint's `config.yaml`, whole or not at all."""
    _write(yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True), folder / CONFIG)


def read_settings(folder: Path, formats: Sequence[int] = (FORMAT,)) -> dict[str, Any]:
    """Reads a checkpoint's `config.yaml`.

    Args:
        folder: of the checkpoint.
        formats: that are accepted.

    Raises:
        WeightsError: if there is none, or it is damaged or of another format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; a checkpoint is a folder with {CONFIG} and {TENSORS}, as "
            "takin_vc.checkpoint.save_checkpoint writes it"
        )
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        why = " ".join(str(error).split())
        raise WeightsError(f"{path}: not plain YAML ({why})") from error
    version = config.get("format") if isinstance(config, dict) else type(config).__name__
    if version not in formats:
        known = " or ".join(map(str, formats))
        way_out = f"; run python -m takin_vc.tools.upgrade {folder}" if version == 2 else ""
        raise WeightsError(f"{path}: format {version!r}; this version reads {known}{way_out}")
    missing = {"model", "trained_on", "left_out", "facts", "files"} - config.keys()
    if missing:
        raise WeightsError(f"{path}: lacks {', '.join(sorted(missing))}")
    for key, (valid, kind) in KINDS.items():
        if not valid(config[key]):
            raise WeightsError(f"{path}: {key} is {_shown(config[key])}, not {kind}; correct it")
    return config


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _write(text: str, path: Path) -> None:
    """Writes a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """The value as dicts, lists, strings, numbers, booleans and None.

    Raises:
        TypeError: if there is anything else in it.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a checkpoint holds plain values only, not {type(value).__name__} {value!r}")
