"""Finds, reads, checks and writes weight files. No code in a file is ever run."""

import hashlib
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# A name that can be a repository of the Hugging Face hub, and none of a path here.
REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
OPENAI_WHISPER = "openai-whisper"
SCALE = ".int8_scale"  # after the name of a tensor of 8 bits: its scales
# Bytes, about, of the files that are used of a repository.
SIZES = {
    "facebook/hubert-large-ls960-ft": 1_262_000_000,
    "microsoft/wavlm-large": 1_262_000_000,
    "nvidia/bigvgan_24khz_100band": 450_000_000,
    "nvidia/bigvgan_v2_24khz_100band_256x": 450_000_000,
    "speechbrain/spkrec-ecapa-voxceleb": 83_300_000,
}


class WeightsError(ValueError):
    """Weights that are missing, unreadable or of another shape; the message names the way out."""


class MissingWeights(WeightsError):
    """Published weights that are not on this machine; nothing in this package downloads them.

    Attributes:
        lacking: what is missing, the message without its way out.
        how: the way out.
        repository: of the Hugging Face hub, "owner/name"; `OPENAI_WHISPER` for a model of its.
        files: names of which all are needed; of openai-whisper the model's name.
        either: names of which one is needed, best first.
        size: of all in bytes, about; 0 where it is not known.
    """

    def __init__(
        self,
        lacking: str,
        how: str,
        repository: str,
        files: Sequence[str] = (),
        either: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{lacking}; get them: {how}")
        self.lacking = lacking
        self.how = how
        self.repository = repository
        self.files = tuple(files)
        self.either = tuple(either)
        self.size = SIZES.get(repository, 0)


def find_files(
    source: str | Path, *, what: str, files: Sequence[str] = (), either: Sequence[str] = ()
) -> list[Path]:
    """The files that `source` stands for, looked for on this machine only.

    Args:
        source: a folder that holds them, a repository of the Hugging Face hub
            ("nvidia/bigvgan_v2_24khz_100band_256x") as its cache has it, or, where a single name
            is given, the file itself.
        what: what the weights are, for the error.
        files: names of which all are needed.
        either: names of which one is needed, best first.

    Returns:
        The files in the order of `files`, then the first of `either` that is there.

    Raises:
        MissingWeights: if the hub's cache lacks one.
        WeightsError: if there is no such file or folder, or the folder lacks one.
    """
    path = Path(source).expanduser()
    names = [*files, *either]
    if path.is_file() and len(names) == 1:
        return [path]
    wanted = [[name] for name in files] + ([list(either)] if either else [])
    in_hub = isinstance(source, str) and REPOSITORY.fullmatch(source) is not None
    if not path.is_dir() and not in_hub:
        raise WeightsError(
            f"{what}: {path}: no such {'file or ' * (len(names) == 1)}folder; name one that holds "
            f"{' and '.join(map(' or '.join, wanted))}"
        )
    paths_of_choices = []
    for choice in wanted:
        if path.is_dir():
            paths = [path / name for name in choice]
        else:
            cached = [try_to_load_from_cache(str(source), name) for name in choice]
            paths = [Path(file) for file in cached if isinstance(file, str)]
        first = next((file for file in paths if file.is_file()), None)
        if first is not None:
            paths_of_choices.append(first)
        elif path.is_dir():
            raise WeightsError(f"{what}: {path} holds no {' or '.join(choice)}; put it there")
        else:
            # Of several formats the last: the oldest, which every repository has.
            raise MissingWeights(
                f"{what}: no {' or '.join(choice)} of {source} in the cache of the Hugging Face "
                "hub",
                f"hf download {source} {' '.join([*files, *either[-1:]])}",
                str(source),
                files,
                either,
            )
    return paths_of_choices


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a `.safetensors` or a PyTorch file; nested names are joined with dots.

    A PyTorch file is read with `weights_only=True`, which refuses what is not plain data.

    Raises:
        WeightsError: if the file is not there, is cut short, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    with reading(path, "not a whole weight file", "get it again"):
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise WeightsError(
                f"{path}: holds more than tensors, and running it could run anything; "
                "convert it to safetensors where you trust it"
            ) from error
    return _flat(content)


@contextmanager
def reading(path: Path, problem: str, way_out: str) -> Iterator[None]:
    """Turns whatever a file of another kind makes of its reader into one line that names the file.

    Raises:
        WeightsError: for any other error.
    """
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path}: {problem} ({reason(error)}); {way_out}") from error


def reason(error: Exception) -> str:
    """The first line of an error, its kind before it."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


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


def in_8_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every matrix of weights as int8 and a scale for each of its rows.

    A row is what the first index gives. Its scale is its largest magnitude / 127, so a value is off
    by half of that at most. Vectors and other dtypes stay.

    Args:
        tensors: by name, floats.

    Returns:
        The same names, and `NAME.int8_scale` (rows,) float32 for each matrix.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        scale = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        stored[name] = (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape)
        stored[name + SCALE] = scale
    return stored


def from_8_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `in_8_bits` stored, as float32; tensors without a scale stay as they are."""
    restored = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALE)}
    for name, scale in tensors.items():
        matrix = restored.get(name.removesuffix(SCALE))
        if name.endswith(SCALE) and matrix is not None and len(scale) == len(matrix):
            rows = matrix.float().flatten(1) * scale[:, None]
            restored[name.removesuffix(SCALE)] = rows.view(matrix.shape)
    return restored


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Loads exactly these `tensors` into `module`, in the module's dtype and on its device.

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
