"""The mean of checkpoints' weights: python -m takin_vc.tools.mean OUT FOLDER FOLDER ...

Checkpoints that were trained on from one another, or from one start, often have a mean that
converts better than each of them (Wortsman et al. 2022, "Model soups", arXiv 2203.05482). OUT is
the checkpoint to write. It declares the training data of all of them. `FOLDER=0.3` gives a weight;
without one, all weigh alike. Judge the mean on held-out speakers like any other checkpoint.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from takin_vc.checkpoint import Checkpoint, load_checkpoint, read_settings, save_checkpoint
from takin_vc.config import ConfigError
from takin_vc.tensors import WeightsError, load_tensors
from takin_vc.train.stages.conversion import FILE_BYTES


def mean(given: Sequence[tuple[Path, float]], out: Path) -> None:
    """Writes the mean of checkpoints of one model, in 16 bits.

    Args:
        given: folders of checkpoints, each with its weight; weights are divided by their sum.
        out: folder to write; not one of them.

    Raises:
        WeightsError: if a checkpoint cannot be read, is of another model or leaves out other
            weights than the first, or has other integer tensors; if a weight is not positive, a
            folder is given twice, or `out` is one of them.
        ConfigError: as `load_checkpoint` raises it.
    """
    folders = dict(given)
    if len(folders) < len(given):
        raise WeightsError("a folder is given twice; give it once, with a larger weight")
    total = sum(folders.values())
    if not all(0 < weight < math.inf for weight in folders.values()):
        raise WeightsError(f"weights must be positive; given: {list(folders.values())}")
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise WeightsError(f"{out} is one of the checkpoints; name another folder for the mean")
    first, *others = folders
    loaded = load_checkpoint(first)
    left_out = read_settings(first)["left_out"]
    tensors = loaded.model.state_dict()
    sums = {n: t.double() * folders[first] for n, t in tensors.items() if t.is_floating_point()}
    trained_on, facts = set(loaded.trained_on), [_facts(loaded, folders[first] / total)]
    for folder in others:
        other = load_checkpoint(folder)
        if other.config != loaded.config or read_settings(folder)["left_out"] != left_out:
            raise WeightsError(f"{folder} is of another model than {first}; they have no mean")
        state = other.model.state_dict()
        for name, tensor in state.items():
            if name in sums:
                sums[name] += tensor.double() * folders[folder]
            elif not torch.equal(tensor, tensors[name]):
                raise WeightsError(f"{folder}: {name} differs from {first}'s, and has no mean")
        trained_on |= other.trained_on
        facts.append(_facts(other, folders[folder] / total))
    means: dict[str, Tensor] = {n: (s / total).to(tensors[n].dtype) for n, s in sums.items()}
    load_tensors(loaded.model, tensors | means, out)
    save_checkpoint(
        out,
        Checkpoint(loaded.model, loaded.config, frozenset(trained_on), {"mean_of": facts}),
        leave_out=sorted(left_out),
        bits=16,
        file_bytes=FILE_BYTES,
    )


def _facts(checkpoint: Checkpoint, weight: float) -> dict[str, Any]:
    return {"weight": weight, **checkpoint.facts}


def main(arguments: Sequence[str]) -> int:
    """Runs the command line. Returns 0, or 1 after a line with the error."""
    if {"-h", "--help"} & set(arguments) or len(arguments) < 3:
        print((__doc__ or "").strip())
        return 0 if {"-h", "--help"} & set(arguments) else 1
    out, *given = arguments
    try:
        mean([_weighted(argument) for argument in given], Path(out))
    except (ConfigError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {out}: cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    print(f"{out}: a checkpoint; system.takin_vc.checkpoint={out} converts with it")
    return 0


def _weighted(argument: str) -> tuple[Path, float]:
    """FOLDER or FOLDER=0.3."""
    folder, equals, weight = argument.rpartition("=")
    try:
        return (Path(folder), float(weight)) if equals else (Path(argument), 1.0)
    except ValueError:
        raise WeightsError(f"{argument!r}: {weight!r} is no number; give FOLDER=0.3") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
