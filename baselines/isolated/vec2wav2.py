"""vec2wav 2.0: vq-wav2vec tokens of the source, WavLM features of the reference, one vocoder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # torch: 2.6 is the first whose torch.load refuses code; the authors' torchaudio is 0.13.1.
    # fairseq has no wheel for this Python: a C++ compiler builds it.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "fairseq==0.12.2",
        "numpy==1.23.5",
        "scipy==1.10.1",
        "h5py==3.11.0",
        "kaldiio==2.18.0",
        "filelock==3.12.4",
        "PyYAML==6.0.2",
        "soundfile==0.13.1",
        "tqdm==4.66.5",
        "einops==0.8.1",
        "setuptools==65.6.3",
    ],
    "packages": ["torchaudio", "fairseq"],
    "repository": "cantabile-kwok/vec2wav2.0",
    "commit": "60ce3de1c9a153c2f5cd6cafc35a1f72883ae5be",
    "paths": ["/vec2wav2/", "/alias_free_torch/", "/conf/"],
    "licences": {"code": "Apache-2.0", "weights": "Apache-2.0"},
    "weights": [
        {
            "path": "generator.ckpt",
            "url": "https://huggingface.co/cantabile-kwok/vec2wav2.0/resolve/main/generator.ckpt",
        },
        {
            "path": "config.yml",
            "url": "https://huggingface.co/cantabile-kwok/vec2wav2.0/resolve/main/config.yml",
        },
        {
            "path": "vq-wav2vec_kmeans.pt",
            "url": "https://dl.fbaipublicfiles.com/fairseq/wav2vec/vq-wav2vec_kmeans.pt",
        },
        {
            "path": "WavLM-Large.pt",
            "url": "https://github.com/coqui-ai/TTS/releases/download/v0.13.0_models/WavLM-Large.pt",
        },
    ],
}


class Adapter:
    """`VoiceConverter` of its script `vc.py`, which takes the whole reference.

    The converter's configuration is read by PyYAML's safe loader, where the script's runs code, and
    checkpoints without running code.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
    """

    def __init__(self, device: str, folder: Path) -> None:
        sys.path.insert(0, str(folder / "repository"))
        import torch
        import yaml

        torch.serialization.add_safe_globals([argparse.Namespace])  # of fairseq's settings
        yaml.Loader = yaml.SafeLoader
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        elif device == "cpu":
            torch.cuda.is_available = lambda: False  # it takes a GPU wherever there is one
        from vec2wav2.bin.vc import VoiceConverter

        weights = folder / "weights"
        self._converter = VoiceConverter(
            expdir=str(weights),
            token_extractor=str(weights / "vq-wav2vec_kmeans.pt"),
            prompt_extractor=str(weights / "WavLM-Large.pt"),
            prompt_output_layer=6,
        )
        self.sample_rate = int(self._converter.config["sampling_rate"])

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        import soundfile

        path = self._converter.voice_conversion(source, reference, "converted.wav")
        return soundfile.read(path, dtype="float32")[0]
