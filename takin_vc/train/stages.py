"""Settings to stages: what `python -m takin_vc.train` runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from takin_vc.codec import HiFiCodecDecoder
from takin_vc.config import build, build_model, donor, load_public_weights, weight_nodes
from takin_vc.content import FrameFeatures
from takin_vc.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from takin_vc.hybridformer import HybridFormer
from takin_vc.model import TakinVC
from takin_vc.tensors import load_tensors, read_tensors
from takin_vc.train import features
from takin_vc.train.batches import CropSampler, PairSampler
from takin_vc.train.content import ContentStage
from takin_vc.train.conversion import ConversionStage
from takin_vc.train.corpus import Recording, held_out_speakers, names_of, read_recordings
from takin_vc.train.ctc import VOCABULARY, CTCStage, TextSampler
from takin_vc.train.features import Versions
from takin_vc.train.loop import Settings, Stage, TrainingError, train
from takin_vc.train.vocoder import VocoderStage
from takin_vc.train.voiceprint import VoiceprintStage

STAGES = ("voiceprint", "vocoder", "conversion", "content", "ctc")


@dataclass(frozen=True)
class Speech:
    """What a stage hears.

    Attributes:
        training: recordings that are trained on.
        held_out: recordings of the other speakers.
    """

    training: list[Recording]
    held_out: list[Recording]


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trains the stage that the settings name, and gives what came of it.

    Raises:
        TrainingError, CorpusError, ConfigError, WeightsError: with what is wrong.
    """
    name = settings["stage"]
    if name not in (*STAGES, "features"):
        raise TrainingError(f"unknown stage {name!r}; there are {', '.join(STAGES)} and features")
    accelerator = Accelerator(
        mixed_precision="no" if settings["precision"] == "float32" else settings["precision"],
        cpu=settings["device"] == "cpu",
    )
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    speech = _speech(settings)
    versions = _versions(settings, speech.training, "training", accelerator)
    held_out = None
    if speech.held_out:
        held_out = _versions(settings, speech.held_out, "held_out", accelerator)
    if name == "features":
        return {"recordings": len(speech.training), "held_out": len(speech.held_out)}
    options = dict(settings[name])
    schedule = Settings(**{"seed": settings["seed"], **options.pop("settings")})
    torch.manual_seed(settings["seed"])
    stage = _BUILD[name](settings, options, speech, versions, held_out, accelerator.device)
    return train(
        stage,
        schedule,
        Path(settings["out"]) / name,
        described={"seed": settings["seed"], "model": settings["model"], name: settings[name]},
        accelerator=accelerator,
    )


def _speech(settings: Mapping[str, Any]) -> Speech:
    tables = settings["data"]
    recordings = read_recordings([tables] if isinstance(tables, str) else tables)
    count = settings["held_out"]["speakers"]
    speakers = held_out_speakers(recordings, count, settings["held_out"]["seed"])
    return Speech(
        [r for r in recordings if r.speaker not in speakers],
        [r for r in recordings if r.speaker in speakers],
    )


def _versions(
    settings: Mapping[str, Any],
    recordings: Sequence[Recording],
    part: str,
    accelerator: Accelerator,
) -> Versions:
    """Features of the recordings, made where they are not there yet."""
    options, model = settings["features"], settings["model"]
    folder = Path(options["folder"]) / part
    speeds = options["speeds"] if part == "training" else [1.0]
    front_ends = {}
    if options["stored"]:
        front_ends = {name: end for name, end in _front_ends(model).items() if end is not None}
    if accelerator.is_local_main_process:
        features.prepare(
            recordings,
            folder,
            mel=build(model["mel"], "model.mel"),
            front_ends=front_ends,
            speeds=speeds,
            batch_seconds=options["batch_seconds"],
            threads=options["threads"],
            device=accelerator.device,
        )
    accelerator.wait_for_everyone()
    wanted = ("wave", "mel", "ssl", "ppg") if settings["stage"] == "conversion" else ("wave",)
    if settings["stage"] == "features":
        wanted, speeds = ("mel",), speeds[:1]
    return features.load(
        folder,
        streams=wanted,
        speeds=speeds,
        device=accelerator.device,
        resident=options["resident"],
    )


def _front_ends(model: Mapping[str, Any]) -> dict[str, FrameFeatures | None]:
    """The content's, with their public weights where they have any."""
    found: dict[str, FrameFeatures | None] = {}
    for name in ("ssl", "ppg"):
        node = model["content"][name]
        if node is None:
            found[name] = None
        elif node.get("_weights_"):
            found[name] = donor(node["_weights_"], f"content.{name}")  # type: ignore[assignment]
        else:
            found[name] = build(node, f"content.{name}")
    return found


def _build_conversion(
    settings: Mapping[str, Any],
    options: dict[str, Any],
    speech: Speech,
    versions: Versions,
    held_out: Versions | None,
    device: torch.device,
) -> Stage:
    config = settings["model"]
    model: TakinVC = build_model(config)
    load_public_weights(model, config)
    out = Path(settings["out"])
    voiceprint = out / "voiceprint" / "voiceprint.safetensors"
    if model.voiceprint is not None and voiceprint.is_file():
        load_tensors(model.voiceprint, read_tensors(voiceprint), voiceprint)  # type: ignore[arg-type]
    elif (
        model.voiceprint is not None
        and not options["train_voiceprint"]
        and not _has_weights(config["voiceprint"])
    ):
        raise TrainingError(
            f"no voiceprint at {voiceprint}; train it first (stage=voiceprint), or with the model "
            "(conversion.train_voiceprint=true)"
        )
    content = out / "content" / "content.safetensors"
    if content.is_file():
        own = model.content.state_dict()
        front_ends = {n: t for n, t in own.items() if n.startswith(("ssl.", "ppg."))}
        load_tensors(model.content, front_ends | read_tensors(content), content)
    vocoder = out / "vocoder" / "vocoder.safetensors"
    if vocoder.is_file():
        load_tensors(model.vocoder, read_tensors(vocoder), vocoder)
    lengths = {
        "targets": options.pop("targets"),
        "references": options.pop("references"),
        "batch_seconds": options.pop("batch_seconds"),
        "balance": options.pop("balance"),
    }
    others = None
    if held_out is not None:
        others = (held_out, PairSampler(speech.held_out, held_out.seconds(), **lengths))
    return ConversionStage(
        model.to(device),
        versions,
        PairSampler(speech.training, versions.seconds(), **lengths),
        others,
        config=config,
        trained_on=names_of(speech.training),
        seed=settings["seed"],
        leave_out=tuple(name for name, _ in weight_nodes(config)),
        **options,
    )


def _build_voiceprint(
    settings: Mapping[str, Any],
    options: dict[str, Any],
    speech: Speech,
    versions: Versions,
    held_out: Versions | None,
    device: torch.device,
) -> Stage:
    def sampler(recordings: Sequence[Recording], of: Versions) -> CropSampler:
        return CropSampler(
            recordings,
            of.seconds(),
            crop_seconds=options["crop_seconds"],
            size=options["batch"],
            balance=options["balance"],
            known_speakers=True,
        )

    return VoiceprintStage(
        build(settings["model"]["voiceprint"], "model.voiceprint").to(device),
        versions,
        sampler(speech.training, versions),
        None if held_out is None else (held_out, sampler(speech.held_out, held_out)),
        seed=settings["seed"],
    )


def _build_vocoder(
    settings: Mapping[str, Any],
    options: dict[str, Any],
    speech: Speech,
    versions: Versions,
    held_out: Versions | None,
    device: torch.device,
) -> Stage:
    crops = {
        "crop_seconds": options.pop("crop_seconds"),
        "size": options.pop("batch"),
        "balance": options.pop("balance"),
    }
    others = None
    if held_out is not None:
        others = (held_out, CropSampler(speech.held_out, held_out.seconds(), **crops))
    return VocoderStage(
        build(settings["model"]["vocoder"], "model.vocoder"),
        build(settings["model"]["mel"], "model.mel"),
        versions,
        CropSampler(speech.training, versions.seconds(), **crops),
        others,
        seed=settings["seed"],
        **options,
    )


def _build_content(
    settings: Mapping[str, Any],
    options: dict[str, Any],
    speech: Speech,
    versions: Versions,
    held_out: Versions | None,
    device: torch.device,
) -> Stage:
    model = settings["model"]
    content = build(model["content"], "model.content")
    for name, node in weight_nodes(model["content"]):
        part = donor(node, f"content.{name}")
        load_tensors(content.get_submodule(name), part.state_dict(), f"content.{name}")
    crops = {
        "crop_seconds": options.pop("crop_seconds"),
        "size": options.pop("batch"),
        "balance": options.pop("balance"),
    }
    others = None
    if held_out is not None:
        others = (held_out, CropSampler(speech.held_out, held_out.seconds(), **crops))
    discriminators = Discriminators(
        [
            MultiPeriodDiscriminator(channels=options.pop("period_channels")),
            MultiScaleDiscriminator(channels=options.pop("scale_channels")),
            MultiScaleSTFTDiscriminator(
                options.pop("spectrum_sizes"), channels=options.pop("spectrum_channels")
            ),
        ]
    )
    return ContentStage(
        content,
        HiFiCodecDecoder(content.dim, channels=options.pop("decoder_channels")),
        discriminators,
        versions,
        CropSampler(speech.training, versions.seconds(), **crops),
        others,
        seed=settings["seed"],
        **options,
    )


def _build_ctc(
    settings: Mapping[str, Any],
    options: dict[str, Any],
    speech: Speech,
    versions: Versions,
    held_out: Versions | None,
    device: torch.device,
) -> Stage:
    batches = {
        "batch_seconds": options.pop("batch_seconds"),
        "longest": options.pop("longest_seconds"),
    }
    others = None
    if held_out is not None:
        others = (held_out, TextSampler(speech.held_out, held_out.seconds(), **batches))
    return CTCStage(
        HybridFormer(**options.pop("hybridformer"), vocabulary=VOCABULARY),
        versions,
        TextSampler(speech.training, versions.seconds(), **batches),
        others,
        seed=settings["seed"],
        **options,
    )


def _has_weights(node: Mapping[str, Any] | None) -> bool:
    return bool(node and node.get("_weights_"))


_BUILD = {
    "voiceprint": _build_voiceprint,
    "vocoder": _build_vocoder,
    "conversion": _build_conversion,
    "content": _build_content,
    "ctc": _build_ctc,
}
