"""chatterbox-tts: the voice converter of Chatterbox (speech tokens, CAM++, flow matching)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.11",
    "requirements": ["chatterbox-tts==0.1.7", "setuptools==80.9.0"],
    "packages": ["chatterbox-tts", "resemble-perth", "torchaudio"],
    "licences": {"code": "MIT", "weights": "MIT"},
    # ChatterboxVC.from_pretrained also reads conds.pt, a built-in voice, which no trial needs.
    "weights": [
        {
            "path": "s3gen.safetensors",
            "url": "https://huggingface.co/ResembleAI/chatterbox/resolve/main/s3gen.safetensors",
        },
    ],
}


class Adapter:
    """ChatterboxVC as it is: its output is watermarked, its reference is cut after 10 s."""

    def __init__(self, device: str, folder: Path) -> None:
        from chatterbox.vc import ChatterboxVC

        self._model = ChatterboxVC.from_local(folder / "weights", device)
        self.sample_rate = self._model.sr

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        return self._model.generate(source, target_voice_path=reference)
