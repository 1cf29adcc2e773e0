"""CosyVoice 2 and 3: flow matching over supervised speech tokens with the reference in context."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # torch: 2.6 is the first whose torch.load refuses code; the authors have 2.3.1.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "transformers==4.51.3",
        "numpy==1.26.4",
        "scipy==1.12.0",
        "librosa==0.10.2",
        "soundfile==0.12.1",
        "HyperPyYAML==1.2.3",
        "ruamel.yaml==0.18.6",
        "modelscope==1.20.0",
        "onnxruntime==1.18.0",
        "openai-whisper==20250625",
        "inflect==7.3.1",
        "conformer==0.3.2",
        "diffusers==0.29.0",
        "x-transformers==2.11.24",
        "einops==0.8.1",
        "hydra-core==1.3.2",
        "omegaconf==2.3.0",
        "lightning==2.2.4",
        "matplotlib==3.7.5",
        "gdown==5.1.0",
        "wget==3.2",
        "rich==13.7.1",
        "pyarrow==18.1.0",
        "pyworld-prebuilt==0.3.6.post1",
        "networkx==3.1",
        "tiktoken==0.8.0",
        "setuptools==80.9.0",
    ],
    "packages": ["torchaudio", "transformers", "onnxruntime"],
    "repository": "FunAudioLLM/CosyVoice",
    "commit": "ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40",
    "paths": [
        "/cosyvoice/",
        "/examples/libritts/cosyvoice2/conf/",
        "/examples/libritts/cosyvoice3/conf/",
    ],
    "submodules": [
        {
            "path": "third_party/Matcha-TTS",
            "repository": "shivammehta25/Matcha-TTS",
            "commit": "dd9105b34bf2be2230f4aa1e4769fb586a3c824e",
        },
    ],
    "licences": {"code": "Apache-2.0", "weights": "Apache-2.0"},
    "weights": [
        {
            "path": "cosyvoice2/cosyvoice2.yaml",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/cosyvoice2.yaml",
        },
        {
            "path": "cosyvoice2/campplus.onnx",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/campplus.onnx",
        },
        {
            "path": "cosyvoice2/speech_tokenizer_v2.onnx",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/speech_tokenizer_v2.onnx",
        },
        {
            "path": "cosyvoice2/llm.pt",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/llm.pt",
        },
        {
            "path": "cosyvoice2/flow.pt",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/flow.pt",
        },
        {
            "path": "cosyvoice2/hift.pt",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/hift.pt",
        },
        {
            "path": "cosyvoice2/CosyVoice-BlankEN/config.json",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/CosyVoice-BlankEN/config.json",
        },
        {
            "path": "cosyvoice2/CosyVoice-BlankEN/generation_config.json",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/CosyVoice-BlankEN/generation_config.json",
        },
        {
            "path": "cosyvoice2/CosyVoice-BlankEN/merges.txt",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/CosyVoice-BlankEN/merges.txt",
        },
        {
            "path": "cosyvoice2/CosyVoice-BlankEN/model.safetensors",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/CosyVoice-BlankEN/model.safetensors",
        },
        {
            "path": "cosyvoice2/CosyVoice-BlankEN/tokenizer_config.json",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/CosyVoice-BlankEN/tokenizer_config.json",
        },
        {
            "path": "cosyvoice2/CosyVoice-BlankEN/vocab.json",
            "url": "https://huggingface.co/FunAudioLLM/CosyVoice2-0.5B/resolve/eec1ae6c79877dbd9379285cf8789c9e0879293d/CosyVoice-BlankEN/vocab.json",
        },
        {
            "path": "cosyvoice3/cosyvoice3.yaml",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/cosyvoice3.yaml",
        },
        {
            "path": "cosyvoice3/campplus.onnx",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/campplus.onnx",
        },
        {
            "path": "cosyvoice3/speech_tokenizer_v3.onnx",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/speech_tokenizer_v3.onnx",
        },
        {
            "path": "cosyvoice3/llm.pt",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/llm.pt",
        },
        {
            "path": "cosyvoice3/flow.pt",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/flow.pt",
        },
        {
            "path": "cosyvoice3/hift.pt",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/hift.pt",
        },
        {
            "path": "cosyvoice3/CosyVoice-BlankEN/config.json",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/CosyVoice-BlankEN/config.json",
        },
        {
            "path": "cosyvoice3/CosyVoice-BlankEN/generation_config.json",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/CosyVoice-BlankEN/generation_config.json",
        },
        {
            "path": "cosyvoice3/CosyVoice-BlankEN/merges.txt",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/CosyVoice-BlankEN/merges.txt",
        },
        {
            "path": "cosyvoice3/CosyVoice-BlankEN/model.safetensors",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/CosyVoice-BlankEN/model.safetensors",
        },
        {
            "path": "cosyvoice3/CosyVoice-BlankEN/tokenizer_config.json",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/CosyVoice-BlankEN/tokenizer_config.json",
        },
        {
            "path": "cosyvoice3/CosyVoice-BlankEN/vocab.json",
            "url": "https://huggingface.co/FunAudioLLM/Fun-CosyVoice3-0.5B-2512/resolve/main/CosyVoice-BlankEN/vocab.json",
        },
    ],
}
MODELS = ("cosyvoice2", "cosyvoice3")


class Adapter:
    """`inference_vc` of its class, in one piece; sources and references over 30 s are refused.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        model: of `MODELS`.
        fp16: whether flow and vocoder run in 16 bits (on a GPU alone).
    """

    def __init__(self, device: str, folder: Path, model: str, fp16: bool) -> None:
        if model not in MODELS:
            raise ValueError(f"model={model!r}; the models are {', '.join(MODELS)}")
        repository = folder / "repository"
        sys.path[:0] = [str(repository), str(repository / "third_party" / "Matcha-TTS")]
        import torch

        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        elif device == "cpu":
            torch.cuda.is_available = lambda: False  # it takes a GPU wherever there is one
        from cosyvoice.cli.cosyvoice import AutoModel

        self._model = AutoModel(model_dir=str(folder / "weights" / model), fp16=fp16)
        self.sample_rate = int(self._model.sample_rate)

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        import torch

        pieces = self._model.inference_vc(source, reference, stream=False, speed=1.0)
        return torch.cat([piece["tts_speech"] for piece in pieces], dim=1)
