"""MeanVC: a causal diffusion transformer with mean flows over chunks of 200 ms."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ENVIRONMENT = {
    "python": "3.11",
    # torch: 2.6 is the first whose torch.load refuses code; the authors have 2.5.1.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "numpy==1.26.4",
        "librosa==0.10.2",
        "einops==0.8.1",
        "x-transformers==2.11.24",
        "s3prl==0.4.17",
        "safetensors==0.4.5",
        "soundfile==0.13.1",
        "matplotlib==3.8.4",
        "tqdm==4.66.5",
    ],
    "packages": ["torchaudio", "s3prl", "x-transformers"],
    "repository": "ASLP-lab/MeanVC",
    "commit": "b07024579284975bc8a6a9aa72201d6279b417ab",
    "paths": ["/src/"],
    "licences": {"code": "Apache-2.0", "weights": "Apache-2.0"},
    "weights": [
        {
            "path": "model_200ms.safetensors",
            "url": "https://huggingface.co/ASLP-lab/MeanVC/resolve/main/model_200ms.safetensors",
        },
        {
            "path": "fastu2++.pt",
            "url": "https://huggingface.co/ASLP-lab/MeanVC/resolve/main/fastu2++.pt",
        },
        {
            "path": "vocos.pt",
            "url": "https://huggingface.co/ASLP-lab/MeanVC/resolve/main/vocos.pt",
        },
        {
            "path": "wavlm_large_finetune.pth",
            "page": "https://drive.google.com/file/d/1-aE1NfzpRCLxA4GUxX9ITI3F9LlbtEGP/view",
        },
        {
            "path": "WavLM-Large.pt",
            "url": "https://github.com/coqui-ai/TTS/releases/download/v0.13.0_models/WavLM-Large.pt",
        },
    ],
}
MEL = {
    "sample_rate": 16000,
    "n_fft": 1024,
    "win_size": 640,
    "hop_length": 160,
    "n_mels": 80,
    "fmin": 0,
    "fmax": 8000,
    "center": True,
}


class Adapter:
    """The steps of its script `infer_ref.py`, which runs on the CPU alone; here on any device.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        steps: of the solver; the script's default is 2.
        chunk: frames of 10 ms that are generated at a time; the published model has 20.
    """

    sample_rate = 16000

    def __init__(self, device: str, folder: Path, steps: int, chunk: int) -> None:
        repository, weights = folder / "repository", folder / "weights"
        # As for its script: the repository, and the folder of the script.
        sys.path[:0] = [str(repository / "src" / "infer"), str(repository)]
        import s3prl.hub
        import torch

        def upstream(_: str, name: str) -> Any:
            """In place of torch.hub, which fetches s3prl and WavLM-Large at each start."""
            assert name == "wavlm_large"
            return s3prl.hub.wavlm_local(ckpt=str(weights / "WavLM-Large.pt"))

        torch.hub.load = upstream  # type: ignore[assignment]
        leave_out_training(repository)
        from src.infer import infer_ref

        self._script, self._device = infer_ref, device
        self._steps, self._chunk = steps, chunk
        config = repository / "src" / "config" / "config_200ms.json"
        flow = infer_ref.DiT(**json.loads(config.read_text(encoding="utf-8"))["model"])
        path = str(weights / "model_200ms.safetensors")
        flow = infer_ref.load_checkpoint(flow, path, device="cpu", use_ema=False)
        self._flow = flow.float().to(device).eval()
        self._vocoder = torch.jit.load(weights / "vocos.pt", map_location=device)
        self._content = torch.jit.load(weights / "fastu2++.pt", map_location=device)
        speaker = infer_ref.init_sv_model("wavlm_large", str(weights / "wavlm_large_finetune.pth"))
        self._speaker = speaker.to(device).eval()
        self._mel = infer_ref.MelSpectrogramFeatures(**MEL).to(device)

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        with stage("features"):
            content, speaker, prompt = self._script.extract_features_from_audio(
                source, reference, self._content, self._speaker, self._mel, self._device
            )
        with stage("flow and vocoder"):
            _, converted, _ = self._script.inference(
                self._flow,
                self._vocoder,
                content,
                speaker,
                prompt,
                self._chunk,
                self._steps,
                self._device,
            )
        return converted.reshape(-1)


def leave_out_training(repository: Path) -> None:
    """Lets `src.model` be imported without its trainers, which need more packages."""
    package = ModuleType("src.model")
    package.__path__ = [str(repository / "src" / "model")]
    sys.modules[package.__name__] = package
