"""Weight files: where they are, what they hold, whether they fit, how they are written. Nothing in
one is ever run."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class WeightsError(ValueError):
    """Weights that are missing, unreadable or of another shape; the message names the way out."""


def find_file(source: str | Path, *names: str, what: str) -> Path:
    """The weight file that `source` stands for.

    Args:
        source: the file itself, a folder that holds one of `names`, or a repository of the Hugging
            Face hub ("nvidia/bigvgan_v2_24khz_100band_256x"), fetched once and kept in its cache.
        names: what the file may be called, best first.
        what: what the weights are, for the error.

    Raises:
        WeightsError: if there is no such file.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        for name in names:
            if (path / name).is_file():
                return path / name
        raise WeightsError(f"{what}: {path} holds no {' or '.join(names)}; put it there")
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "~")):
        for name in names:
            try:
                return Path(hf_hub_download(source, name))
            except (RepositoryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
                continue
        raise WeightsError(
            f"{what}: no {' or '.join(names)} of {source!r} in the Hugging Face cache, and the hub "
            f"cannot be reached; on a machine with access run `hf download {source} {names[0]} "
            "--local-dir FOLDER`, copy FOLDER here and name it instead"
        )
    raise WeightsError(
        f"{what}: {path}: no such file or folder; name one that holds {' or '.join(names)}"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a `.safetensors` or a PyTorch file; nested names are joined with dots.

    A PyTorch file is read with `weights_only=True`, which refuses what is not plain data.

    Raises:
        WeightsError: if the file is not there, is cut short, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors, and running it could run anything; "
            "convert it to safetensors where you trust it"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(f"{path}: not a whole weight file ({error}); get it again") from error
    return _flat(content)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a `.safetensors` file that appears whole or not at all.

    Raises:
        WeightsError: if it cannot be written; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        temporary.replace(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Gives `module` exactly these `tensors`, in its own dtype and on its own device.

    Args:
        module: every tensor of its `state_dict` must be among `tensors`, and no other.
        tensors: by name.
        source: where they come from, for the error.

    Raises:
        WeightsError: naming the first tensor, in the module's order, that is missing or has another
            shape, or else the first that the module does not have.
    """
    expected = module.state_dict()
    kind = type(module).__name__
    for name, tensor in expected.items():
        if name not in tensors:
            raise WeightsError(f"{source}: has no tensor {name!r}, which this {kind} needs")
        if tensors[name].shape != tensor.shape:
            raise WeightsError(
                f"{source}: {name!r} has shape {tuple(tensors[name].shape)}, but this {kind} needs "
                f"{tuple(tensor.shape)}; it was made with other settings"
            )
    for name in tensors:
        if name not in expected:
            raise WeightsError(f"{source}: has a tensor {name!r}, which this {kind} lacks")
    module.load_state_dict(tensors)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and values, whatever the order and the device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _flat(content: object, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of nested mappings by dotted name; whatever else a training run saved is left out."""
    if isinstance(content, Tensor):
        return {prefix: content}
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        for name, value in content.items():
            tensors |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return tensors
