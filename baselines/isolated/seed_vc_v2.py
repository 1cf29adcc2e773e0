"""Seed-VC v2, by the steps of its script `inference_v2.py`. GPL-3.0."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # transformers: the authors' version. torch: 2.6 is the first whose torch.load refuses code.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "torchvision==0.21.0",
        "transformers==4.46.3",
        "numpy==1.26.4",
        "scipy==1.13.1",
        "librosa==0.10.2",
        "soundfile==0.12.1",
        "einops==0.8.0",
        "matplotlib==3.8.4",
        "munch==4.0.0",
        "pydub==0.25.1",
        "hydra-core==1.3.2",
        "omegaconf==2.3.0",
        "PyYAML==6.0.2",
        "tqdm==4.66.5",
    ],
    "packages": ["torchaudio", "transformers"],
    "repository": "Plachtaa/seed-vc",
    "commit": "d334fb72407ca4abfb929f50f9067ff6ccd13bb0",
    "paths": ["/modules/", "/configs/v2/", "/hf_utils.py"],
    "licences": {"code": "GPL-3.0", "weights": "GPL-3.0"},
    "weights": [
        {
            "path": "v2/cfm_small.pth",
            "url": "https://huggingface.co/Plachta/Seed-VC/resolve/main/v2/cfm_small.pth",
        },
        {
            "path": "v2/ar_base.pth",
            "url": "https://huggingface.co/Plachta/Seed-VC/resolve/main/v2/ar_base.pth",
        },
        {
            "path": "bsq32/bsq32_light.pth",
            "url": "https://huggingface.co/Plachta/ASTRAL-quantization/resolve/main/bsq32/bsq32_light.pth",
        },
        {
            "path": "bsq2048/bsq2048_light.pth",
            "url": "https://huggingface.co/Plachta/ASTRAL-quantization/resolve/main/bsq2048/bsq2048_light.pth",
        },
        {
            "path": "campplus_cn_common.bin",
            "url": "https://huggingface.co/funasr/campplus/resolve/main/campplus_cn_common.bin",
        },
        {
            "path": "hubert/config.json",
            "url": "https://huggingface.co/facebook/hubert-large-ll60k/resolve/main/config.json",
        },
        {
            "path": "hubert/preprocessor_config.json",
            "url": "https://huggingface.co/facebook/hubert-large-ll60k/resolve/main/preprocessor_config.json",
        },
        {
            "path": "hubert/pytorch_model.bin",
            "url": "https://huggingface.co/facebook/hubert-large-ll60k/resolve/main/pytorch_model.bin",
        },
        {
            "path": "bigvgan/config.json",
            "url": "https://huggingface.co/nvidia/bigvgan_v2_22khz_80band_256x/resolve/main/config.json",
        },
        {
            "path": "bigvgan/bigvgan_generator.pt",
            "url": "https://huggingface.co/nvidia/bigvgan_v2_22khz_80band_256x/resolve/main/bigvgan_generator.pt",
        },
    ],
}


class Adapter:
    """Seed-VC v2, 22.05 kHz; its reference is cut after 25 s.

    Of the methods of its class only the streaming one agrees with its flow's arguments
    (`convert_timbre` and `convert_voice` name two that it does not take).

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        steps: of the solver; the script's default is 30.
        intelligibility: guidance by the content; the script's default is 0.7.
        similarity: guidance by the reference; the script's default is 0.7.
        style: whether the autoregressive model converts the style too; the script's default is no.
        fp16: whether the encoders, and the autoregressive model, run in 16 bits.
    """

    def __init__(
        self,
        device: str,
        folder: Path,
        steps: int,
        intelligibility: float,
        similarity: float,
        style: bool,
        fp16: bool,
    ) -> None:
        repository, weights = folder / "repository", folder / "weights"
        sys.path.insert(0, str(repository))
        import torch
        import yaml
        from hydra.utils import instantiate
        from modules.astral_quantization import default_model
        from modules.v2 import vc_wrapper
        from omegaconf import OmegaConf

        default_model.AutoTokenizer = _Unused  # of Whisper: conversion uses it nowhere
        vc_wrapper.AudioSegment = _NoMp3

        def installed(repo_id: str, model_filename: str, **_: Any) -> str:
            """The file that was installed, in place of the hub's."""
            return str(weights / model_filename)

        vc_wrapper.load_custom_model_from_hf = installed
        text = (repository / "configs" / "v2" / "vc_wrapper.yaml").read_text(encoding="utf-8")
        config = yaml.safe_load(text)
        for name in ("content_extractor_narrow", "content_extractor_wide"):
            config[name]["ssl_model_name"] = str(weights / "hubert")
        config["vocoder"]["pretrained_model_name_or_path"] = str(weights / "bigvgan")
        model = instantiate(OmegaConf.create(config))
        model.load_checkpoints(
            cfm_checkpoint_path=str(weights / "v2" / "cfm_small.pth"),
            ar_checkpoint_path=str(weights / "v2" / "ar_base.pth"),
        )
        place, kind = torch.device(device), torch.float16 if fp16 else torch.float32
        self._model = model.to(place).eval()
        self._model.setup_ar_caches(max_batch_size=1, max_seq_len=4096, dtype=kind, device=place)
        self._arguments = {
            "diffusion_steps": steps,
            "length_adjust": 1.0,
            "intelligebility_cfg_rate": intelligibility,  # spelt so
            "similarity_cfg_rate": similarity,
            "top_p": 0.9,
            "temperature": 1.0,
            "repetition_penalty": 1.0,
            "convert_style": style,
            "anonymization_only": False,
            "device": place,
            "dtype": kind,
            "stream_output": True,  # without it, its result is lost
        }
        self.sample_rate = int(config["sr"])

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        speech = None
        for _, speech in self._model.convert_voice_with_streaming(  # noqa: B007
            source_audio_path=source, target_audio_path=reference, **self._arguments
        ):
            pass
        if speech is None:
            raise ValueError("it gave no speech")
        return speech[1]


class _Unused:
    """In place of a tokenizer that is loaded and not used."""

    @staticmethod
    def from_pretrained(_: str) -> None:
        return None


class _NoMp3:
    """In place of pydub's class, which would call ffmpeg for each chunk of the stream."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def export(self, **_: Any) -> _NoMp3:
        return self

    def read(self) -> bytes:
        return b""
