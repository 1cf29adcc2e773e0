"""HierSpeech++: its speech synthesizer as a voice converter, by the steps of `inference_vc.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # torch: 2.6 is the first whose torch.load refuses code; the authors have 1.13.1.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "torchvision==0.21.0",
        "numpy==1.26.4",
        "scipy==1.11.4",
        "transformers==4.46.3",
        "einops==0.8.1",
        "timm==0.6.13",
        "librosa==0.10.2",
        "AMFM_decompy==1.0.11",
        "soundfile==0.13.1",
    ],
    "packages": ["torchaudio", "transformers", "AMFM_decompy"],
    "repository": "sh-lee-prml/HierSpeechpp",
    "commit": "318c633cdc24cf3239d62c95ea8afae200ed2d13",
    "paths": ["/*.py", "/alias_free_torch/", "/speechsr24k/", "/speechsr48k/"],
    "licences": {"code": "MIT", "weights": "MIT", "weights of mms-300m": "CC-BY-NC-4.0"},
    # Both SpeechSR networks are in the repository.
    "weights": [
        {
            "path": "hierspeechpp_v1.1_ckpt.pth",
            "page": "https://drive.google.com/drive/folders/14jaDUBgrjVA7bCODJqAEirDwRlvJe272",
        },
        {
            "path": "config.json",
            "page": "https://drive.google.com/drive/folders/14jaDUBgrjVA7bCODJqAEirDwRlvJe272",
        },
        {
            "path": "mms-300m/config.json",
            "url": "https://huggingface.co/facebook/mms-300m/resolve/main/config.json",
        },
        {
            "path": "mms-300m/pytorch_model.bin",
            "url": "https://huggingface.co/facebook/mms-300m/resolve/main/pytorch_model.bin",
        },
    ],
}
RATE = 16000
BLOCK = 1280  # samples that the source is padded to
PEAK = 0.999  # of the output, by `--scale_norm max`
YAAPT = {
    "frame_length": 20.0,
    "frame_space": 5.0,
    "nccf_thresh1": 0.25,
    "tda_frame_length": 25.0,
    "f0_max": 1100,
}
# Sample rate → folder, file and module of the SpeechSR network.
SUPER_RESOLUTION = {24000: ("speechsr24k", "G_340000.pth"), 48000: ("speechsr48k", "G_100000.pth")}


class Adapter:
    """The hierarchical speech synthesizer with content of MMS and the reference's style.

    The denoiser of the reference's style, which its documented command leaves out, is left out.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        noise: scale of the prior's noise; the script's default is 0.333.
        sample_rate: 16000; 24000 and 48000 by its super-resolution.
    """

    def __init__(self, device: str, folder: Path, noise: float, sample_rate: int) -> None:
        if sample_rate not in (RATE, *SUPER_RESOLUTION):
            raise ValueError(f"sample_rate={sample_rate}; it is 16000, 24000 or 48000")
        repository, weights = folder / "repository", folder / "weights"
        sys.path.insert(0, str(repository))
        import torch
        import transformers
        from hierspeechpp_speechsynthesizer import SynthesizerTrn, Wav2vec2
        from Mels_preprocess import MelSpectrogramFixed

        self._device, self._noise, self.sample_rate = device, noise, sample_rate
        tensor: Any = torch.Tensor  # its synthesizer's constructor puts one on the GPU
        tensor.cuda = lambda values: values.to(device)
        model: Any = transformers.Wav2Vec2ForPreTraining
        read = model.from_pretrained
        model.from_pretrained = lambda _: read(str(weights / "mms-300m"))  # in place of the hub
        self._content = Wav2vec2().to(device)
        config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
        data = config["data"]
        self._mel = MelSpectrogramFixed(
            sample_rate=data["sampling_rate"],
            n_fft=data["filter_length"],
            win_length=data["win_length"],
            hop_length=data["hop_length"],
            f_min=data["mel_fmin"],
            f_max=data["mel_fmax"],
            n_mels=data["n_mel_channels"],
            window_fn=torch.hann_window,
        ).to(device)
        self._synthesizer = _network(SynthesizerTrn, config, data["filter_length"] // 2 + 1)
        checkpoint = weights / "hierspeechpp_v1.1_ckpt.pth"
        self._synthesizer.load_state_dict(_read(checkpoint))
        self._synthesizer.eval().to(device)
        self._super_resolution = None
        if sample_rate in SUPER_RESOLUTION:
            self._super_resolution = _super_resolution(repository, sample_rate).eval().to(device)

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        import librosa
        import torch

        speech = librosa.load(source, sr=RATE)[0]
        samples = len(speech) * self.sample_rate // RATE
        prompt = librosa.load(reference, sr=RATE)[0]
        padded = torch.from_numpy(speech)[None]
        padded = torch.nn.functional.pad(padded, (0, BLOCK - len(speech) % BLOCK))
        with stage("pitch"):
            pitch = _moved(_pitch(padded[0].numpy()), _pitch(prompt))
        with torch.no_grad():
            with stage("content"):
                wide = torch.nn.functional.pad(padded, (40, 40), "reflect")
                content = self._content(wide.to(self._device))
            with stage("synthesis"):
                mel = self._mel(torch.from_numpy(prompt)[None].repeat(2, 1).to(self._device))
                converted = self._synthesizer.voice_conversion_noise_control(
                    content,
                    torch.tensor([content.size(2)], device=self._device),
                    mel,
                    torch.tensor([mel.size(2)] * 2, device=self._device),
                    torch.from_numpy(pitch)[None, None].to(self._device),
                    noise_scale=self._noise,
                    denoise_ratio=0,
                )
            if self._super_resolution is not None:
                with stage("super-resolution"):
                    converted = self._super_resolution(converted)
        converted = converted.flatten()[:samples]
        return converted / converted.abs().max() * PEAK


def _network(cls: Any, config: dict[str, Any], channels: int) -> Any:
    """A `SynthesizerTrn` of the repository by its `config.json`."""
    frames = config["train"]["segment_size"] // config["data"]["hop_length"]
    return cls(channels, frames, **config["model"])


def _read(path: Path) -> Any:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _super_resolution(repository: Path, sample_rate: int) -> Any:
    """The SpeechSR network of the repository for this rate."""
    import importlib

    name, checkpoint = SUPER_RESOLUTION[sample_rate]
    config = json.loads((repository / name / "config.json").read_text(encoding="utf-8"))
    module = importlib.import_module(f"{name}.speechsr")
    network = _network(module.SynthesizerTrn, config, config["data"]["n_mel_channels"])
    network.load_state_dict(_read(repository / name / checkpoint)["model"])
    return network


def _pitch(samples: Any) -> Any:
    """F0 of each 5 ms in Hz, 0 where it is unvoiced: (N,)."""
    import numpy
    from amfm_decompy import basic_tools, pYAAPT

    half = int(YAAPT["frame_length"] / 1000 * RATE) // 2
    signal = basic_tools.SignalObj(numpy.pad(samples.astype("float64"), half), RATE)
    return pYAAPT.yaapt(signal, **YAAPT).samp_values


def _moved(source: Any, reference: Any) -> Any:
    """The log of the source's pitch with the mean and the spread of the reference's."""
    import numpy

    voiced, heights = source != 0, reference[reference != 0]
    if not voiced.any() or not len(heights):
        raise ValueError("no voiced frame in the source or in the reference")
    values = source[voiced]
    moved = (values - values.mean()) / values.std() * heights.std() + heights.mean()
    source[voiced] = moved.clip(min=0)
    return numpy.log(source + 1).astype("float32")
