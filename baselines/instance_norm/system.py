"""The autoencoder as a system of the benchmark."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from baselines.instance_norm.network import (
    FACTS,
    MEL_MEAN,
    MEL_STD,
    WEIGHTS,
    InstanceNormAutoencoder,
)
from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
from bench.stages.timing import stage
from bench.systems import SELECTED
from takin_vc.system import TakinVCSystem, load_for_system
from takin_vc.tensors import WeightsError, from_8_bits, load_tensors, read_tensors


class InstanceNorm:
    """Converts by instance normalisation; see `baselines.instance_norm.network`.

    The vocoder of a Takin-VC checkpoint speaks the converted mel.

    Args:
        weights: folder of the trained autoencoder, as `baselines.instance_norm.train` writes it.
        vocoder: folder of the Takin-VC checkpoint whose mel and vocoder are used.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        UserError: if the weights or the checkpoint cannot be loaded.
    """

    # The width of the content was chosen by these judges on held-out training speakers: see the
    # card of the weights.
    networks: tuple[Mapping[str, str], ...] = tuple(
        {"name": name, "use": SELECTED}
        for name in ("ge2e-resemblyzer", "ecapa-small", "whisper-base")
    )

    def __init__(self, weights: str | Path, vocoder: str | Path, *, device: str = "auto") -> None:
        self.device = torch_device(device)
        loaded = load_for_system(vocoder, "instance_norm", self.device)
        self.mel, self.speak = loaded.model.mel, loaded.model.speak
        facts = _facts(weights)
        self.trained_on = self.training_data(weights, vocoder)
        path = Path(weights).expanduser() / WEIGHTS
        try:
            model = InstanceNormAutoencoder(**facts["model"])
            load_tensors(model, from_8_bits(read_tensors(path)), path)
        except (TypeError, WeightsError) as error:
            raise UserError(f"instance_norm: {error}") from error
        self.model = model.to(self.device).eval()

    @staticmethod
    def training_data(weights: str | Path, vocoder: str | Path, **_: Any) -> frozenset[str]:
        """See `bench.systems.System`: of the autoencoder and of the vocoder."""
        return frozenset(_facts(weights)["trained_on"]) | TakinVCSystem.training_data(vocoder)

    @torch.inference_mode()
    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`, at the vocoder's sample rate."""
        with stage("autoencoder"):
            made = self.model(self._scaled(source), self._scaled(reference)) * MEL_STD + MEL_MEAN
        with stage("vocoder"):
            (speech,) = self.speak(made, torch.tensor([made.shape[2]], device=made.device))
        return Waveform(speech.samples, speech.sample_rate)

    def _scaled(self, speech: Waveform) -> torch.Tensor:
        """(1, n_mels, L), about of mean 0 and variance 1."""
        samples = speech.resample(self.mel.sample_rate).samples.to(self.device)
        mel: torch.Tensor = self.mel(samples[None])
        return (mel - MEL_MEAN) / MEL_STD


def _facts(weights: str | Path) -> dict[str, Any]:
    """The sizes and the training data of an autoencoder.

    Raises:
        UserError: if the folder has none.
    """
    path = Path(weights).expanduser() / FACTS
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"instance_norm: no trained autoencoder at {path.parent} ({why}); "
            "system.instance_norm.weights names its folder"
        ) from error
    if not isinstance(facts, dict) or not {"model", "trained_on"} <= facts.keys():
        raise UserError(f"{path}: lacks model or trained_on; train it again")
    return facts
