"""Amphion: FACodec of NaturalSpeech 3, whose decoder takes another speaker's embedding."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.11",
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "numpy==1.26.4",
        "librosa==0.10.2",
        "einops==0.8.1",
        "soundfile==0.13.1",
        "pyworld-prebuilt==0.3.6.post1",
    ],
    "packages": ["torchaudio", "librosa"],
    "repository": "open-mmlab/Amphion",
    "commit": "d3de90f02e7f1c7dbc24b04d52fe1b8ef438effe",
    "paths": ["/models/__init__.py", "/models/codec/__init__.py", "/models/codec/ns3_codec/"],
    "licences": {"code": "MIT", "weights": "Apache-2.0"},
    "weights": [
        {
            "path": "ns3_facodec_encoder_v2.bin",
            "url": "https://huggingface.co/amphion/naturalspeech3_facodec/resolve/main/ns3_facodec_encoder_v2.bin",
        },
        {
            "path": "ns3_facodec_decoder_v2.bin",
            "url": "https://huggingface.co/amphion/naturalspeech3_facodec/resolve/main/ns3_facodec_decoder_v2.bin",
        },
    ],
}
# models/codec/ns3_codec/README.md of the repository.
ENCODER = {"ngf": 32, "up_ratios": [2, 4, 5, 5], "out_channels": 256}
DECODER = {
    "in_channels": 256,
    "upsample_initial_channel": 1024,
    "ngf": 32,
    "up_ratios": [5, 5, 4, 2],
    "vq_num_q_c": 2,
    "vq_num_q_p": 1,
    "vq_num_q_r": 3,
    "vq_dim": 256,
    "codebook_dim": 8,
    "codebook_size_prosody": 10,
    "codebook_size_content": 10,
    "codebook_size_residual": 10,
    "use_gr_x_timbre": True,
    "use_gr_residual_f0": True,
    "use_gr_residual_phone": True,
}
HOP = 200  # samples


class Adapter:
    """FACodecEncoderV2 and FACodecDecoderV2 without the residual codes, as its README converts."""

    sample_rate = 16000

    def __init__(self, device: str, folder: Path) -> None:
        sys.path.insert(0, str(folder / "repository"))
        import torch
        from models.codec.ns3_codec import FACodecDecoderV2, FACodecEncoderV2

        self._device = device
        self._encoder = FACodecEncoderV2(**ENCODER)
        self._decoder = FACodecDecoderV2(**DECODER)
        for name, model in (("encoder", self._encoder), ("decoder", self._decoder)):
            path = folder / "weights" / f"ns3_facodec_{name}_v2.bin"
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            model.eval().to(device)

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        import torch

        with torch.no_grad():
            with stage("encoder"):
                samples, codes, _ = self._encoded(source)
                _, _, speaker = self._encoded(reference)
            with stage("decoder"):
                embedded = self._decoder.vq2emb(codes, use_residual=False)
                return self._decoder.inference(embedded, speaker)[0, :, :samples]

    def _encoded(self, path: str) -> tuple[int, Any, Any]:
        """The number of samples, the codes and the speaker embedding of a file."""
        import librosa
        import torch

        wav = torch.from_numpy(librosa.load(path, sr=self.sample_rate)[0]).float()
        padded = torch.nn.functional.pad(wav, (0, -len(wav) % HOP)).to(self._device)[None, None]
        _, codes, _, _, speaker = self._decoder(
            self._encoder(padded),
            self._encoder.get_prosody_feature(padded),
            eval_vq=False,
            vq=True,
        )
        return len(wav), codes, speaker
