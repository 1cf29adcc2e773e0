"""Prepares and loads the features that the settings of a training name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from takin_vc.config import build, donor
from takin_vc.frontends.base import FrameFeatures
from takin_vc.train.data import features
from takin_vc.train.data.corpus import CorpusError, TrainingRecording
from takin_vc.train.data.versions import STREAMS, Versions, load_versions
from takin_vc.train.data.voices import OtherVoices, VoicesSettings


def prepare_part(
    settings: Mapping[str, Any],
    recordings: Sequence[TrainingRecording],
    part: str,
    accelerator: Accelerator,
) -> None:
    """Computes the features of a part that are missing.

    Args:
        settings: of the whole recipe.
        recordings: of the part.
        part: "training" or "held_out".
        accelerator: its main process computes, and the others wait.

    Raises:
        CorpusError: as `features.prepare` and `OtherVoices` raise it, or if the settings of
            `features` contradict one another.
    """
    options, model = settings["features"], settings["model"]
    uses_front_ends = settings["stage"] in ("conversion", "features")
    if uses_front_ends and options["noise"] and not options["stored"]:
        raise CorpusError(
            "features.noise needs stored features: give features.stored=true or features.noise=0"
        )
    mel = build(model["mel"], "model.mel")
    chosen, voices = voices_of(settings, part), None
    if chosen is not None and not options["stored"]:
        raise CorpusError("features.voices needs features.stored=true")
    if chosen is not None and accelerator.is_local_main_process:
        voices = OtherVoices(
            recordings,
            chosen,
            sample_rate=mel.sample_rate,
            batch_seconds=options["batch_seconds"] / 4,
            device=accelerator.device,
            threads=options["threads"],
            half=settings["precision"] == "bf16",
        )
    torch.manual_seed(settings["seed"])  # a front end without public weights is the same every time
    if accelerator.is_local_main_process:
        features.prepare(
            recordings,
            Path(options["folder"]) / part,
            mel=mel,
            front_ends=front_ends_of(model) if options["stored"] else {},
            **_speeds(settings, part),
            noise=options["noise"] if part == "training" and options["stored"] else 0.0,
            voices=voices,
            batch_seconds=options["batch_seconds"],
            threads=options["threads"],
            device=accelerator.device,
        )
    accelerator.wait_for_everyone()


def load_part(settings: Mapping[str, Any], part: str, device: torch.device) -> Versions:
    """The features of a part that the stage needs.

    Args:
        settings: of the whole recipe.
        part: "training" or "held_out".
        device: of the batches.

    Raises:
        CorpusError: as `load_versions` raises it.
    """
    options = settings["features"]
    voices = voices_of(settings, part)
    return load_versions(
        Path(options["folder"]) / part,
        streams=STREAMS if settings["stage"] == "conversion" else ("wave",),
        **_speeds(settings, part),
        voices=0 if voices is None else voices.count,
        device=device,
        resident=options["resident"],
    )


def _speeds(settings: Mapping[str, Any], part: str) -> dict[str, list[float]]:
    """Speeds of a part; held-out speakers have only speed 1."""
    if part != "training":
        return {"speeds": [1.0]}
    return {name: settings["features"][name] for name in ("speeds", "sound_speeds")}


def voices_of(settings: Mapping[str, Any], part: str) -> VoicesSettings | None:
    """How the recordings of a part are converted to other voices; held-out ones are not.

    Raises:
        CorpusError: if the settings of `features.voices` make no sense.
    """
    given = settings["features"]["voices"]
    if given is None or part != "training" or settings["stage"] not in ("conversion", "features"):
        return None
    try:
        return VoicesSettings(**given)
    except TypeError as error:
        raise CorpusError(f"features.voices: {error}") from error


def front_ends_of(model: Mapping[str, Any]) -> dict[str, FrameFeatures]:
    """The front ends "ssl" and "ppg" of a model's settings, those that it has, with their public
    weights where they have any.

    Raises:
        WeightsError: if public weights are not on this machine.
    """
    front_ends: dict[str, FrameFeatures] = {}
    for name in ("ssl", "ppg"):
        node = model["content"][name]
        if node is not None:
            where = f"content.{name}"
            weights = node.get("_weights_")
            part: Any = donor(weights, where) if weights else build(node, where)
            front_ends[name] = part
    return front_ends
