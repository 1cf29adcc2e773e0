"""Builds the stage that the settings name, and trains it: `python -m takin_vc.train`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from takin_vc.checkpoint import load_checkpoint, read_settings
from takin_vc.config import build, build_model, load_public_weights, weight_nodes
from takin_vc.frontends.hybridformer import HybridFormer
from takin_vc.model import TakinVC
from takin_vc.tensors import load_tensors, read_tensors
from takin_vc.train.codec.codec import HiFiCodecDecoder
from takin_vc.train.codec.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from takin_vc.train.data.batches import CropSampler, PairSampler
from takin_vc.train.data.corpus import (
    TrainingRecording,
    held_out_speakers,
    identity_of,
    names_of,
    only_speakers,
    read_recordings,
    weights_of,
)
from takin_vc.train.data.prepared import front_ends_of, load_part, prepare_part, voices_of
from takin_vc.train.data.versions import Versions
from takin_vc.train.loop import Trainer, TrainingSettings
from takin_vc.train.stage import Stage, TrainingError
from takin_vc.train.stages.consistency import Consistency
from takin_vc.train.stages.content import ContentStage
from takin_vc.train.stages.conversion import ConversionStage
from takin_vc.train.stages.ctc import VOCABULARY, CTCStage, TextSampler
from takin_vc.train.stages.vocoder import VocoderStage
from takin_vc.train.stages.voiceprint import VoiceprintStage
from takin_vc.train.validation.trials import ValidationTrials

STAGES = ("voiceprint", "vocoder", "conversion", "content", "ctc")


@dataclass(frozen=True)
class Material:
    """Everything that a stage is built from.

    Attributes:
        settings: of the whole recipe.
        options: of this stage; a builder removes those that it uses itself.
        training: recordings that are trained on, and their versions.
        held_out: those of the other speakers; None validates nothing.
        device: where the stage computes.
    """

    settings: Mapping[str, Any]
    options: dict[str, Any]
    training: tuple[list[TrainingRecording], Versions]
    held_out: tuple[list[TrainingRecording], Versions] | None
    device: torch.device

    def take(self, **names: str) -> dict[str, Any]:
        """Options out of the stage's, as arguments of other names: argument="option"."""
        return {argument: self.options.pop(option) for argument, option in names.items()}

    def sampled(
        self, sampler: Callable[[list[TrainingRecording], Versions], Any]
    ) -> dict[str, Any]:
        """Versions and samplers of both parts, as every stage takes them, and the seed."""
        recordings, versions = self.training
        others = None
        if self.held_out is not None:
            validated, validated_versions = self.held_out
            others = (validated_versions, sampler(validated, validated_versions))
        return {
            "versions": versions,
            "sampler": sampler(recordings, versions),
            "held_out": others,
            "seed": self.settings["seed"],
        }

    def crops(self, **arguments: Any) -> dict[str, Any]:
        """`sampled`, of single crops."""
        options = self.take(crop_seconds="crop_seconds", size="batch", balance="balance")
        factors = self.options.pop("corpora", None) or {}
        return self.sampled(
            lambda recordings, versions: CropSampler(
                recordings,
                versions.seconds(),
                **options,
                **arguments,
                weights=self.weights(recordings, factors),
            )
        )

    def weights(
        self,
        recordings: list[TrainingRecording],
        factors: Mapping[str, float],
        speakers: int | None = None,
    ) -> np.ndarray | None:
        """Those of the training recordings by corpus and speaker; None for held-out ones."""
        if recordings is not self.training[0]:
            return None
        weights = weights_of(recordings, factors)
        return weights if speakers is None else weights * only_speakers(recordings, speakers)


def run(settings: Mapping[str, Any], trainer: Callable[..., Trainer] = Trainer) -> dict[str, Any]:
    """Trains the stage that the settings name, and returns its result.

    Args:
        settings: of the whole recipe.
        trainer: makes the training loop, with the arguments of `Trainer`.

    Raises:
        TrainingError, CorpusError, ConfigError, WeightsError: with what is wrong.
    """
    name = settings["stage"]
    if name not in (*STAGES, "features"):
        raise TrainingError(f"unknown stage {name!r}; there are {', '.join(STAGES)} and features")
    if settings["start"] is not None and name in ("content", "ctc"):
        raise TrainingError(
            f"start={settings['start']}: stage {name} cannot start with a checkpoint"
        )
    accelerator = Accelerator(
        mixed_precision="no" if settings["precision"] == "float32" else settings["precision"],
        cpu=settings["device"] == "cpu",
    )
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    # While features are prepared cuDNN would compare its kernels for every new length.
    torch.backends.cudnn.benchmark = False
    tables = settings["data"]
    recordings = read_recordings([tables] if isinstance(tables, str) else tables)
    apart = settings["held_out"]
    speakers = held_out_speakers(recordings, apart["speakers"], apart["seed"])
    parts = {
        "training": [r for r in recordings if r.speaker not in speakers],
        "held_out": [r for r in recordings if r.speaker in speakers],
    }
    for part, members in parts.items():
        if members:
            prepare_part(settings, members, part, accelerator)
    if name == "features":
        return {part: len(members) for part, members in parts.items()}
    torch.backends.cudnn.benchmark = True
    training, held_out = (
        (members, load_part(settings, part, accelerator.device)) if members else None
        for part, members in parts.items()
    )
    assert training is not None  # held_out_speakers leaves some
    options = dict(settings[name])
    schedule = TrainingSettings(**{"seed": settings["seed"], **options.pop("settings")})
    torch.manual_seed(settings["seed"])
    stage = _BUILD[name](Material(settings, options, training, held_out, accelerator.device))
    return trainer(
        stage,
        schedule,
        Path(settings["out"]) / name,
        described=_described(settings, recordings),
        accelerator=accelerator,
        facts={"trained_on": sorted(names_of(training[0]) | _trained_before(settings))},
    ).run()


def _described(
    settings: Mapping[str, Any], recordings: Sequence[TrainingRecording]
) -> dict[str, Any]:
    """The settings that determine the outcome: a checkpoint of others is refused."""
    name, options = settings["stage"], settings["features"]
    keys = ["speeds", "sound_speeds"]
    if name == "conversion":  # no other stage uses front ends
        keys += ["noise", "stored", "voices"]
    same = ("seed", "start", "model", "held_out", "precision", name)
    return {
        **{key: settings[key] for key in same},
        "features": {key: options[key] for key in keys},
        "data": identity_of(recordings),
    }


def _start(settings: Mapping[str, Any], module: nn.Module, name: str = "") -> None:
    """Gives a model, or its part `name`, the weights that training starts with, if any."""
    folder = settings["start"]
    if folder is None:
        return
    part = load_checkpoint(folder).model.get_submodule(name)
    load_tensors(module, part.state_dict(), folder)


def _trained_before(settings: Mapping[str, Any]) -> frozenset[str]:
    """What the checkpoints were trained on that training starts with, or converts sources with."""
    voices = voices_of(settings, "training")
    folders = [settings["start"], None if voices is None else voices.checkpoint]
    known = [read_settings(Path(folder))["trained_on"] for folder in folders if folder is not None]
    return frozenset().union(*known)


def _public(settings: Mapping[str, Any], trained: set[str]) -> tuple[str, ...]:
    """Names of what keeps its public weights; `trained` are the parts that do not."""
    names = [name for name, _ in weight_nodes(settings["model"])]
    if settings["start"] is not None:  # all weights are that checkpoint's
        left_out = read_settings(Path(settings["start"]))["left_out"]
        names = [name for name in names if name in left_out]
    return tuple(name for name in names if name.partition(".")[0] not in trained)


def _build_conversion(material: Material) -> Stage:
    settings, options = material.settings, material.options
    config = settings["model"]
    model: TakinVC = build_model(config)
    load_public_weights(model, config)
    _start(settings, model)
    out = Path(settings["out"])
    learns = isinstance(model.voiceprint, nn.Module) and any(
        parameter.requires_grad for parameter in model.voiceprint.parameters()
    )
    trained = {"voiceprint"} if learns and options["train_voiceprint"] else set()
    voiceprint = out / "voiceprint" / "voiceprint.safetensors"
    if model.voiceprint is not None and voiceprint.is_file():
        load_tensors(model.voiceprint, read_tensors(voiceprint), voiceprint)  # type: ignore[arg-type]
        trained.add("voiceprint")
    elif (
        model.voiceprint is not None
        and not options["train_voiceprint"]
        and settings["start"] is None
        and not list(weight_nodes(config["voiceprint"]))
    ):
        raise TrainingError(
            f"no voiceprint at {voiceprint}; train it first (stage=voiceprint), or with the model "
            "(conversion.train_voiceprint=true)"
        )
    content = out / "content" / "content.safetensors"
    if content.is_file():
        state = model.content.state_dict()
        front_ends = {n: t for n, t in state.items() if n.startswith(("ssl.", "ppg."))}
        load_tensors(model.content, front_ends | read_tensors(content), content)
    vocoder = out / "vocoder" / "vocoder.safetensors"
    if vocoder.is_file():
        load_tensors(model.vocoder, read_tensors(vocoder), vocoder)
        trained.add("vocoder")
    public = bool(config["vocoder"].get("_weights_"))
    vocoder_trained = vocoder.is_file() or settings["start"] is not None or public
    trials = _trials(material, vocoder_trained)
    pairs = material.take(
        targets="targets",
        references="references",
        batch_seconds="batch_seconds",
        balance="balance",
        known_speakers="known_speakers",
    )

    factors = options.pop("corpora", None) or {}
    weights = material.weights(material.training[0], factors, options.pop("speakers", None))
    judged, consistency = options.pop("consistency", None), None

    def sampler(recordings: list[TrainingRecording], versions: Versions) -> PairSampler:
        return PairSampler(
            recordings,
            versions.seconds(),
            content_versions=len(versions.content_speeds),
            weights=weights if recordings is material.training[0] else None,
            **pairs,
        )

    model.to(material.device)
    if judged is not None:
        consistency = Consistency.fitted(
            model, material.training[1], judged, options["codebook_steps"]
        )
    used = material.training[0]
    if weights is not None and judged is None:  # its losses are fitted to some of all
        used = [r for r, weight in zip(used, weights, strict=True) if weight > 0]
    return ConversionStage(
        model,
        **material.sampled(sampler),
        config=config,
        trained_on=names_of(used) | _trained_before(settings),
        leave_out=_public(settings, trained),
        trials=trials,
        consistency=consistency,
        **options,
    )


def _trials(material: Material, vocoder_trained: bool) -> ValidationTrials | None:
    """The conversions of held-out speech in a validation, judged by the benchmark.

    Args:
        material: of the stage; its option "judges" is taken out.
        vocoder_trained: whether conversions can be judged by their sound.
    """
    names = material.options.pop("judges", None)
    judging = None
    if names:
        if not vocoder_trained:
            vocoder = Path(material.settings["out"]) / "vocoder" / "vocoder.safetensors"
            raise TrainingError(
                f"conversion.judges={names} need a vocoder, and there is none at {vocoder}; train "
                "it first (stage=vocoder), start from a checkpoint (start=...), or leave the "
                "judges out (conversion.judges=null)"
            )
        # Here, since training without judges needs nothing of the harness.
        from takin_vc.train.validation.judging import Judges

        judging = Judges(names)
    if material.held_out is None:
        if judging is not None:
            raise TrainingError(
                f"conversion.judges={names} need held-out speakers, and there are none; raise "
                "held_out.speakers, or leave the judges out (conversion.judges=null)"
            )
        return None
    return ValidationTrials(*material.held_out, judging=judging, vocoder_trained=vocoder_trained)


def _build_voiceprint(material: Material) -> Stage:
    voiceprint = build(material.settings["model"]["voiceprint"], "model.voiceprint")
    _start(material.settings, voiceprint, "voiceprint")
    return VoiceprintStage(
        voiceprint.to(material.device),
        **material.crops(known_speakers=True),
        **material.options,
    )


def _build_vocoder(material: Material) -> Stage:
    model = material.settings["model"]
    vocoder = build(model["vocoder"], "model.vocoder")
    _start(material.settings, vocoder, "vocoder")
    return VocoderStage(
        vocoder,
        build(model["mel"], "model.mel"),
        **material.crops(),
        **material.options,
    )


def _build_content(material: Material) -> Stage:
    node, options = material.settings["model"]["content"], material.options
    content = build(node, "model.content")
    for name, front_end in front_ends_of({"content": node}).items():
        state = front_end.state_dict()  # type: ignore[attr-defined]
        load_tensors(content.get_submodule(name), state, f"content.{name}")
    discriminators = Discriminators(
        [
            MultiPeriodDiscriminator(**material.take(channels="period_channels")),
            MultiScaleDiscriminator(**material.take(channels="scale_channels")),
            MultiScaleSTFTDiscriminator(
                **material.take(n_ffts="spectrum_sizes", channels="spectrum_channels")
            ),
        ]
    )
    return ContentStage(
        content,
        HiFiCodecDecoder(content.dim, **material.take(channels="decoder_channels")),
        discriminators,
        **material.crops(),
        **options,
    )


def _build_ctc(material: Material) -> Stage:
    batches = material.take(batch_seconds="batch_seconds", longest="longest_seconds")
    return CTCStage(
        HybridFormer(**material.options.pop("hybridformer"), vocabulary=VOCABULARY),
        **material.sampled(
            lambda recordings, versions: TextSampler(recordings, versions.seconds(), **batches)
        ),
        **material.options,
    )


_BUILD = {
    "voiceprint": _build_voiceprint,
    "vocoder": _build_vocoder,
    "conversion": _build_conversion,
    "content": _build_content,
    "ctc": _build_ctc,
}
