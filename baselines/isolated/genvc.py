"""GenVC: a language model over phonetic and acoustic tokens, with a HiFi-GAN of its latents."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # torch: 2.6 is the first whose torch.load refuses code; the authors have 2.3.0.
    # fairseq has no wheel for this Python: a C++ compiler builds it.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "transformers==4.33.0",
        "fairseq==0.12.2",
        "numpy==1.26.4",
        "scipy==1.11.4",
        "librosa==0.10.2",
        "soundfile==0.13.1",
        "pandas==1.5.3",
        "matplotlib==3.8.4",
        "einops==0.8.1",
        "wandb==0.18.5",
        "trainer==0.0.36",
        "coqpit==0.0.17",
        "torchmetrics==1.4.3",
        "nnAudio==0.3.3",
        "pydub==0.25.1",
        "vector-quantize-pytorch==1.17.3",
        "termcolor==2.4.0",
        "prettytable==3.11.0",
        "setuptools==65.6.3",
    ],
    "packages": ["torchaudio", "transformers", "fairseq"],
    "repository": "caizexin/GenVC",
    "commit": "14f59fc574ab7e2c50bf1b7877a9eb7b33200b3e",
    "paths": ["/*.py", "/configs/", "/inference/", "/layers/", "/trainers/"],
    "licences": {"code": "MIT", "weights": "MIT"},
    "weights": [
        {
            "path": "GenVC_small.pth",
            "url": "https://huggingface.co/ZexinCai/GenVC/resolve/main/pre_trained/GenVC_small.pth",
        },
        {
            "path": "GenVC_large.pth",
            "url": "https://huggingface.co/ZexinCai/GenVC/resolve/main/pre_trained/GenVC_large.pth",
        },
        {
            "path": "contentVec.pt",
            "url": "https://huggingface.co/ZexinCai/GenVC/resolve/main/pre_trained/contentVec.pt",
        },
        {
            "path": "mel_stats.pth",
            "url": "https://huggingface.co/ZexinCai/GenVC/resolve/main/pre_trained/mel_stats.pth",
        },
    ],
}
MODELS = ("small", "large")


class Adapter:
    """`synthesize_utt` of its script `infer.py`: segments of 6 s, joined in latent space.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        model: of `MODELS`: small (LibriTTS) or large (also MLS and Common Voice).
        top_k: tokens that are drawn from; the script's default is 15.
    """

    def __init__(self, device: str, folder: Path, model: str, top_k: int) -> None:
        if model not in MODELS:
            raise ValueError(f"model={model!r}; the models are {', '.join(MODELS)}")
        sys.path.insert(0, str(folder / "repository"))
        import torch
        from fairseq.data.dictionary import Dictionary

        torch.serialization.add_safe_globals([argparse.Namespace, Dictionary])  # of ContentVec
        weights = folder / "weights"
        Path("pre_trained").symlink_to(weights.absolute())  # paths in the checkpoint begin so
        from inference.inference_utils import synthesize_utt
        from inference.model_init import model_init
        from utils import load_audio

        self._model, config = model_init(str(weights / f"GenVC_{model}.pth"), device)
        self._model.config.top_k = top_k
        self._synthesize, self._load = synthesize_utt, load_audio
        self.sample_rate = int(config.audio.sample_rate)

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        words = self._load(source, self._model.content_sample_rate)
        voice = self._load(reference, self.sample_rate)
        if words is None or voice is None:  # it prints why and goes on
            raise ValueError("its load_audio refuses the source or the reference; see the log")
        return self._synthesize(self._model, words, voice)
