"""Joins the results of the stages to one checkpoint: python -m takin_vc.train.bundle OUT FOLDER

OUT is the folder of a training (`out=`), with `conversion/checkpoint` and
`vocoder/vocoder.safetensors`, unless the vocoder is a public one; FOLDER is the checkpoint to
write. It declares the training data of every stage. Its files stay under 16 MiB and leave out
public weights that no stage has trained.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from takin_vc.checkpoint import Checkpoint, load_checkpoint, read_settings, save_checkpoint
from takin_vc.config import ConfigError
from takin_vc.tensors import WeightsError, load_tensors, read_tensors
from takin_vc.train.stages.conversion import FILE_BYTES


def bundle(out: Path, folder: Path) -> None:
    """Writes the checkpoint.

    Args:
        out: of a training.
        folder: of the checkpoint.

    Raises:
        WeightsError: if a stage's result is missing, unreadable or does not fit, or the checkpoint
            cannot be written.
    """
    conversion = out / "conversion" / "checkpoint"
    loaded = load_checkpoint(conversion)
    vocoder = out / "vocoder" / "vocoder.safetensors"
    left_out = set(read_settings(conversion)["left_out"])
    if vocoder.is_file() or "vocoder" not in left_out:
        load_tensors(loaded.model.vocoder, read_tensors(vocoder), vocoder)
        left_out.discard("vocoder")
    facts, trained_on = dict(loaded.facts), set(loaded.trained_on)
    for stage in ("voiceprint", "content", "vocoder"):
        if (out / stage / f"{stage}.safetensors").is_file():
            facts[stage], names = _result(out / stage / "result.json", stage)
            trained_on |= names
    try:
        save_checkpoint(
            folder,
            Checkpoint(loaded.model, loaded.config, frozenset(trained_on), facts),
            leave_out=sorted(left_out),
            bits=16,
            file_bytes=FILE_BYTES,
        )
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from error


def _result(path: Path, stage: str) -> tuple[dict[str, Any], set[str]]:
    """What a stage's training came to, and what it and the checkpoint it started with were trained
    on.

    Raises:
        WeightsError: if the file is missing, no JSON, or does not name the training data.
    """
    # A training at the end of its schedule writes the file again, and trains no step.
    again = f"run stage={stage} again, with the settings it had"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        names = facts.pop("trained_on")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"trained_on is {names!r}")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); {again}") from error
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON ({error}); {again}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: does not name the training data; {again}") from error
    return facts, set(names)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line. Returns 0, or 1 after a line with the error."""
    if len(arguments) != 2:
        print((__doc__ or "").strip())
        return 0 if {"-h", "--help"} & set(arguments) else 1
    try:
        bundle(Path(arguments[0]), Path(arguments[1]))
    except (ConfigError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{arguments[1]}: a checkpoint; system.takin_vc.checkpoint={arguments[1]} converts with it"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
