"""Trains a stage of Takin-VC: python -m takin_vc.train recipe=mini stage=conversion data=list.csv

Stages, in the order of a whole training: voiceprint, vocoder and conversion; `content` and `ctc`
train front ends and are optional. Each writes to OUT/STAGE and resumes from the files there;
`python -m takin_vc.train.bundle` joins them to one checkpoint.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from takin_vc.config import ConfigError, load
from takin_vc.tensors import WeightsError
from takin_vc.train.data.corpus import CorpusError
from takin_vc.train.run import STAGES, run
from takin_vc.train.stage import TrainingError


def main(arguments: Sequence[str]) -> int:
    """Runs the command line. Returns 0, or 1 after a line with the error."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        print(f"\nstages: {', '.join(STAGES)}")
        print(
            "settings: takin_vc/conf/recipe/*.yaml, each an override: conversion.settings.steps=9"
        )
        return 0
    try:
        settings: Mapping[str, Any] = load(arguments, "train")
        result = run(settings)
    except (ConfigError, CorpusError, TrainingError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    state = PartialState()  # of the training: several processes say once what came of it
    if state.is_main_process:
        stage, out = settings["stage"], Path(settings["out"])
        folder = settings["features"]["folder"] if stage == "features" else out / stage
        print(f"{stage}: {result} in {folder}")
    state.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
