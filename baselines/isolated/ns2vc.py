"""NS2VC: NaturalSpeech 2 for conversion, with ContentVec and Vocos. No weights are published."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # The repository pins nothing. fairseq has no wheel for this Python: a C++ compiler builds it.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "fairseq==0.12.2",
        "vocos==0.1.0",
        "accelerate==0.24.1",
        "ema-pytorch==0.7.7",
        "numpy==1.23.5",
        "scipy==1.10.1",
        "librosa==0.10.2",
        "soundfile==0.13.1",
        "matplotlib==3.7.5",
        "praat-parselmouth==0.4.7",
        "pyworld-prebuilt==0.3.6.post1",
        "tensorboard==2.15.2",
        "unidecode==1.3.8",
        "inflect==7.4.0",
        "setuptools==65.6.3",
    ],
    "packages": ["torchaudio", "fairseq", "vocos"],
    "repository": "adelacvg/NS2VC",
    "commit": "f71eae076aee9ab3f61c08fe1a41ce700f15567f",
    "licences": {"code": "not stated", "weights": "none published"},
    "weights": [
        {
            "path": "model.pt",
            "page": "its own training: no weights are published (https://github.com/adelacvg/NS2VC)",
        },
        {
            "path": "hubert/checkpoint_best_legacy_500.pt",
            "page": "https://ibm.ent.box.com/s/z1wgl1stco8ffooyatzdwsqn2psd9lrr",
        },
        {
            "path": "vocos/config.yaml",
            "url": "https://huggingface.co/charactr/vocos-mel-24khz/resolve/main/config.yaml",
        },
        {
            "path": "vocos/pytorch_model.bin",
            "url": "https://huggingface.co/charactr/vocos-mel-24khz/resolve/main/pytorch_model.bin",
        },
    ],
}
PAUSE = 0.5  # seconds of silence around each piece, as the script's default
SILENCE = -40  # dB; the script's default


class Adapter:
    """`Svc` of its script `infer.py`, with the script's defaults, for a model that you trained.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
    """

    def __init__(self, device: str, folder: Path) -> None:
        repository, weights = folder / "repository", folder / "weights"
        sys.path.insert(0, str(repository))
        Path("hubert").symlink_to((weights / "hubert").absolute())  # a path in its code
        import torch
        import vocos.pretrained
        from fairseq.data.dictionary import Dictionary

        torch.serialization.add_safe_globals([argparse.Namespace, Dictionary])  # of ContentVec

        def local(repo_id: str, filename: str, **_: Any) -> str:
            """The file that was installed, in place of the hub's."""
            return str(weights / "vocos" / filename)

        vocos.pretrained.hf_hub_download = local
        from inference import infer_tool, slicer

        self._tool, self._slicer = infer_tool, slicer
        self._model = infer_tool.Svc(
            str(weights / "model.pt"), str(repository / "config.json"), device
        )
        # The script leaves the vocoder on the CPU, where the model's mels are not.
        self._model.vocos = self._model.vocos.to(device)
        self.sample_rate = int(self._model.target_sample)

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        import numpy
        import soundfile

        pieces, rate = self._slicer.chunks2audio(
            source, self._slicer.cut(source, db_thresh=SILENCE)
        )
        converted = []
        for silent, samples in pieces:
            length = int(numpy.ceil(len(samples) / rate * self.sample_rate))
            if silent:
                converted.append(numpy.zeros(length, dtype="float32"))
                continue
            around = numpy.zeros(int(rate * PAUSE))
            wav = io.BytesIO()
            soundfile.write(wav, numpy.concatenate([around, samples, around]), rate, format="wav")
            wav.seek(0)
            speech, _ = self._model.infer(
                0, wav, reference, auto_predict_f0=True, F0_mean_pooling=False, cr_threshold=0.05
            )
            cut = int(self.sample_rate * PAUSE)
            converted.append(self._tool.pad_array(speech.numpy()[cut:-cut], length))
        return numpy.concatenate(converted)
