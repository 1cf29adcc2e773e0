"""Writes random weights of CosyVoice 2 and 3 to a folder, by the configurations of its recipes.

Flow and vocoder have their published size. The language model, which conversion does not use, has
one layer. The speech tokenizer and CAM++ are published as ONNX files alone: one layer each stands
in for them here. REPOSITORY (of the environment) names the clone of CosyVoice.
"""

import json
import os
import sys
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor, nn
from torch.onnx._internal import onnx_proto_utils
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.tokenization_qwen2 import bytes_to_unicode

repository, out = Path(os.environ["REPOSITORY"]), Path(sys.argv[1])
sys.path[:0] = [str(repository), str(repository / "third_party" / "Matcha-TTS")]
torch.manual_seed(1)
# The exporter needs the package onnx only for functions of onnxscript, of which there are none.
onnx_proto_utils._add_onnxscript_fn = lambda model, _: model
VERSIONS = {"cosyvoice2": "speech_tokenizer_v2", "cosyvoice3": "speech_tokenizer_v3"}


class Tokenizer(nn.Module):
    """Log mel (1, 128, T) → tokens (1, T / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(128, 6561, 4, stride=4)

    def forward(self, mel: Tensor, length: Tensor) -> Tensor:
        return self.layer(mel).argmax(1) + 0 * length


class Speaker(nn.Module):
    """Filter banks (1, T, 80) → embedding (1, 192)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(80, 192)

    def forward(self, fbank: Tensor) -> Tensor:
        return self.layer(fbank).mean(1)


def export(network: nn.Module, inputs: tuple[Tensor, ...], axis: int, path: Path) -> None:
    names = [f"input{i}" for i in range(len(inputs))]
    axes = {"input0": {axis: "time"}}
    torch.onnx.export(network, inputs, path, input_names=names, dynamic_axes=axes, dynamo=False)


for name, tokenizer in VERSIONS.items():
    folder = out / name
    blank = folder / "CosyVoice-BlankEN"
    blank.mkdir(parents=True)
    vocabulary = [*bytes_to_unicode().values(), "<|endoftext|>"]
    (blank / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}))
    (blank / "merges.txt").write_text("#version: 0.2\n")
    about = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 32768}
    (blank / "tokenizer_config.json").write_text(json.dumps(about))
    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=1,  # of 24
        num_attention_heads=14,
        num_key_value_heads=2,
    )
    Qwen2ForCausalLM(config).save_pretrained(blank)

    text = (repository / "examples" / "libritts" / name / "conf" / f"{name}.yaml").read_text()
    (folder / f"{name}.yaml").write_text(text)
    configs = load_hyperpyyaml(text, overrides={"qwen_pretrain_path": str(blank)})
    for part in ("llm", "flow", "hift"):
        torch.save(configs[part].state_dict(), folder / f"{part}.pt")

    mel, length = torch.randn(1, 128, 100), torch.tensor([100], dtype=torch.int32)
    export(Tokenizer().eval(), (mel, length), 2, folder / f"{tokenizer}.onnx")
    export(Speaker().eval(), (torch.randn(1, 100, 80),), 1, folder / "campplus.onnx")
