"""coqui-tts: FreeVC 24 kHz, kNN-VC, OpenVoice 1 and 2 behind one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.11",
    "requirements": [
        "coqui-tts==0.28.0",
        "torch==2.8.0",
        "torchaudio==2.8.0",
        "six==1.17.0",
    ],
    "packages": ["coqui-tts", "torchaudio"],
    "licences": {"code": "MPL-2.0", "weights": "MIT"},
    # What TTS/.models.json of the package names; its publishers give no sha256.
    "weights": [
        {
            "path": "freevc24.zip",
            "unpack": "freevc24",
            "url": "https://github.com/coqui-ai/TTS/releases/download/v0.13.0_models/voice_conversion_models--multilingual--vctk--freevc24.zip",
        },
        {
            "path": "speaker_encoder.pt",
            "url": "https://github.com/coqui-ai/TTS/releases/download/v0.13.0_models/speaker_encoder.pt",
        },
        {
            "path": "tts/wavlm/WavLM-Large.pt",
            "url": "https://github.com/coqui-ai/TTS/releases/download/v0.13.0_models/WavLM-Large.pt",
        },
        {
            "path": "knnvc_vocoder.zip",
            "unpack": "knnvc_vocoder",
            "url": "https://github.com/idiap/coqui-ai-TTS/releases/download/v0.25.2_models/vocoder_models--en--librispeech100--wavlm-hifigan_prematched.zip",
        },
        {
            "path": "OpenVoice/checkpoint.pth",
            "url": "https://huggingface.co/myshell-ai/OpenVoice/resolve/main/checkpoints/converter/checkpoint.pth",
        },
        {
            "path": "OpenVoice/config.json",
            "url": "https://huggingface.co/myshell-ai/OpenVoice/resolve/main/checkpoints/converter/config.json",
        },
        {
            "path": "OpenVoiceV2/checkpoint.pth",
            "url": "https://huggingface.co/myshell-ai/OpenVoiceV2/resolve/main/converter/checkpoint.pth",
        },
        {
            "path": "OpenVoiceV2/config.json",
            "url": "https://huggingface.co/myshell-ai/OpenVoiceV2/resolve/main/converter/config.json",
        },
    ],
}
MODELS = ("freevc24", "knnvc", "openvoice_v1", "openvoice_v2")


class Adapter:
    """One voice-conversion model of the package.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        model: of `MODELS`.
        topk: neighbours of kNN-VC; None for its default.
    """

    def __init__(self, device: str, folder: Path, model: str, topk: int | None = None) -> None:
        if model not in MODELS:
            raise ValueError(f"model={model!r}; the models are {', '.join(MODELS)}")
        import os

        weights = folder / "weights"
        os.environ["TTS_HOME"] = str(weights)  # where it looks for WavLM before it downloads it
        import torch
        from TTS.utils.synthesizer import Synthesizer

        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        self._arguments = {} if topk is None else {"topk": topk}
        self._synthesizer = Synthesizer(
            **_files(model, weights), use_cuda=device.startswith("cuda")
        )
        self.sample_rate = self._synthesizer.output_sample_rate

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        return self._synthesizer.voice_conversion(source, reference, **self._arguments)


def _files(model: str, weights: Path) -> dict[str, Path]:
    """The arguments of `Synthesizer` that name local files."""
    if model.startswith("openvoice"):
        # Its class is chosen by "OpenVoice" in the path.
        folder = weights / ("OpenVoice" if model == "openvoice_v1" else "OpenVoiceV2")
        return {"vc_checkpoint": folder / "checkpoint.pth", "vc_config": folder / "config.json"}
    if model == "knnvc":
        from TTS.vc.configs.knnvc_config import KNNVCConfig

        config = Path("knnvc.json").absolute()  # in the worker's scratch folder
        KNNVCConfig().save_json(str(config))
        vocoder = weights / "knnvc_vocoder"
        return {
            "vc_checkpoint": weights,  # it has none
            "vc_config": config,
            "vocoder_checkpoint": _checkpoint(vocoder),
            "vocoder_config": vocoder / "config.json",
        }
    from TTS.vc.models import freevc

    def load_speaker_encoder(self: Any) -> None:
        """Reads the file that was installed, where the library's version opens an address."""
        self.enc_spk_ex = freevc.SpeakerEncoderEx(str(weights / "speaker_encoder.pt"))

    freevc.FreeVC.load_pretrained_speaker_encoder = load_speaker_encoder
    folder = weights / "freevc24"
    return {"vc_checkpoint": _checkpoint(folder), "vc_config": folder / "config.json"}


def _checkpoint(folder: Path) -> Path:
    """The only checkpoint of an unpacked release."""
    files = [p for p in sorted(folder.iterdir()) if p.suffix in (".pt", ".pth")]
    if len(files) != 1:
        raise ValueError(f"{folder} has {len(files)} checkpoints, not one")
    return files[0]
