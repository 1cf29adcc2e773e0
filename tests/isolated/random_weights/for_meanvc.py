"""Writes random weights of MeanVC to a folder.

The flow has its published size; WavLM in the speaker network has 2 layers. The content encoder and
the vocoder are published as TorchScript alone: one layer each stands in for them here. REPOSITORY
(of the environment) names the clone of MeanVC.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import s3prl.hub
import torch
from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig
from safetensors.torch import save_file
from torch import Tensor, nn

path = Path(__file__).parents[3] / "baselines" / "isolated" / "meanvc.py"
spec = importlib.util.spec_from_file_location("adapter", path)
adapter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(adapter)
adapter.leave_out_training(Path(os.environ["REPOSITORY"]))
sys.path[:0] = [f"{os.environ['REPOSITORY']}/src/infer", os.environ["REPOSITORY"]]
from src.infer.dit_kvcache import DiT  # noqa: E402
from src.runtime.speaker_verification.verification import init_model  # noqa: E402

out = Path(sys.argv[1])
torch.manual_seed(1)
config = Path(os.environ["REPOSITORY"]) / "src" / "config" / "config_200ms.json"
flow = DiT(**json.loads(config.read_text())["model"])
for parameter in flow.parameters():  # its last layers begin at zero
    if not parameter.any():
        nn.init.normal_(parameter, std=0.02)
save_file(
    {k: v.contiguous() for k, v in flow.state_dict().items()}, out / "model_200ms.safetensors"
)


class Content(nn.Module):
    """A chunk of 23 frames of 10 ms → 5 of 40 ms, as the script calls the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(80, 256, 7, stride=4)

    @torch.jit.export
    def forward_encoder_chunk(
        self,
        fbanks: Tensor,
        offset: int,
        required_cache_size: int,
        att_cache: Tensor,
        cnn_cache: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.layer(fbanks.transpose(1, 2)).transpose(1, 2), att_cache, cnn_cache


class Vocoder(nn.Module):
    """Mel (1, 80, T) → speech (1, 160 T)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose1d(80, 1, 160, stride=160)

    @torch.jit.export
    def decode(self, mel: Tensor) -> Tensor:
        return self.layer(mel)[:, 0]


torch.jit.save(torch.jit.script(Content()), out / "fastu2++.pt")
torch.jit.save(torch.jit.script(Vocoder()), out / "vocos.pt")

LARGE = {  # of WavLM-Large, but for the number of layers
    "extractor_mode": "layer_norm",
    "encoder_layers": 2,
    "encoder_embed_dim": 1024,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
    "layer_norm_first": True,
    "normalize": True,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
}
wavlm = WavLM(WavLMConfig(LARGE))
torch.save({"cfg": LARGE, "model": wavlm.state_dict()}, out / "WavLM-Large.pt")
torch.hub.load = lambda *_: s3prl.hub.wavlm_local(ckpt=str(out / "WavLM-Large.pt"))
speaker = init_model("wavlm_large")
torch.save({"model": speaker.state_dict()}, out / "wavlm_large_finetune.pth")
