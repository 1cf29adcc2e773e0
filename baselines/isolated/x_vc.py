"""X-VC: one-step conversion in the latent space of a neural codec."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # torch: 2.6 is the first whose torch.load refuses code; the authors have 2.5.1.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "torchvision==0.21.0",
        "transformers==4.44.1",
        "numpy==1.26.4",
        "scipy==1.12.0",
        "einops==0.8.0",
        "einx==0.3.0",
        "x-transformers==1.40.2",
        "hydra-core==1.3.2",
        "omegaconf==2.3.0",
        "julius==0.2.7",
        "librosa==0.10.2",
        "matplotlib==3.7.5",
        "soundfile==0.12.1",
        "soxr==0.3.7",
        "tqdm==4.66.5",
        "wandb==0.18.5",
        "tensorboard==2.20.0",
        "descript-audiotools==0.7.2",
    ],
    "packages": ["torchaudio", "transformers", "x-transformers"],
    "repository": "Jerrister/X-VC",
    "commit": "49df8c591eafc48b096e466d96f9839f9c0dd739",
    "licences": {
        "code": "MIT",
        "weights": "MIT",
        "weights of GLM-4-Voice's tokenizer": "glm-4-voice",
    },
    "weights": [
        {
            "path": "xvc.pt",
            "url": "https://huggingface.co/chenxie95/X-VC/resolve/9e54747d8c4d1ef544b903e2300a4ba040dcc126/xvc.pt",
        },
        {
            "path": "tokenizer/config.json",
            "url": "https://huggingface.co/zai-org/glm-4-voice-tokenizer/resolve/main/config.json",
        },
        {
            "path": "tokenizer/preprocessor_config.json",
            "url": "https://huggingface.co/zai-org/glm-4-voice-tokenizer/resolve/main/preprocessor_config.json",
        },
        {
            "path": "tokenizer/model.safetensors",
            "url": "https://huggingface.co/zai-org/glm-4-voice-tokenizer/resolve/main/model.safetensors",
        },
        {
            "path": "speaker/configuration.json",
            "url": "https://modelscope.cn/models/iic/speech_eres2net_sv_en_voxceleb_16k/resolve/master/configuration.json",
        },
        {
            "path": "speaker/pretrained_eres2net.ckpt",
            "url": "https://modelscope.cn/models/iic/speech_eres2net_sv_en_voxceleb_16k/resolve/master/pretrained_eres2net.ckpt",
        },
    ],
}
BLOCK = 1280  # samples that source and reference are padded to


class Adapter:
    """`run_offline` of its script `infer_single.py`.

    Its checkpoint is read without running code, where the script allows code.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        ema: whether the averaged weights convert; the script's default is no.
    """

    def __init__(self, device: str, folder: Path, ema: bool) -> None:
        repository, weights = folder / "repository", folder / "weights"
        sys.path.insert(0, str(repository))
        import torch
        from omegaconf import OmegaConf

        read = torch.load
        torch.load = lambda *a, **k: read(*a, **{**k, "weights_only": True})
        from bins import infer_utils

        config = OmegaConf.load(repository / "configs" / "xvc.yaml")
        generator = config.model.generator
        semantic = generator.semantic_encoder
        for part in (semantic.encoder.from_pretrained, semantic.cfg):
            part.local_ckpt = str(weights / "tokenizer")
        generator.speaker_encoder.pretrained_dir = str(weights / "speaker")
        OmegaConf.save(config, "xvc.yaml")  # in the worker's scratch folder
        infer_utils._to_device = lambda _: torch.device(device)
        self._config, self._model, self._device = infer_utils.load_xvc(
            "xvc.yaml", str(weights / "xvc.pt"), 0, ema
        )
        self._script = infer_utils
        self.sample_rate = int(self._config["sample_rate"])

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        import soundfile

        about = soundfile.info(source)
        tensors = self._script.load_pair_as_tensors(
            source_wav_path=source,
            target_wav_path=reference,
            cfg=self._config,
            device=self._device,
            latent_hop_length=BLOCK,
            mask_target_condition=False,
        )
        converted = self._script.run_offline(self._model, *tensors)
        return converted.reshape(-1)[: about.frames * self.sample_rate // about.samplerate]
