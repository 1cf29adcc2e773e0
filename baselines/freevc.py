"""FreeVC: VITS from WavLM's features, through a bottleneck, with a speaker embedding; 16 kHz.

Li, Tu and Xiao 2022, "FreeVC: Towards High-Quality Text-Free One-Shot Voice Conversion" (arXiv
2210.15418, ICASSP 2023). Written after OlaWod/FreeVC at commit 60032a7; docs/systems/freevc.md has
the comparison.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.nets.freevc import FreeVCNetwork
from baselines.nets.hifigan import without_weight_norm
from baselines.nets.wavlm import find_wavlm, load_wavlm, wavlm_features
from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
from bench.judges.encoders import resemblyzer
from bench.stages.timing import stage
from bench.systems import CONDITIONED, CONTENT
from bench.weights import Weights
from bench.weights.find import WebFile, WeightsMissing, find, missing, short
from bench.weights.state import load_state, read_state

SAMPLE_RATE = 16_000  # Hz
TRIM = 20  # dB below the loudest frame: what is quieter at the reference's ends is cut

NAME, FILE = "FreeVC", "freevc.pth"
PLACE = "the OneDrive folder that github.com/OlaWod/FreeVC names"
SPEAKER_NAME, SPEAKER_FILE = "FreeVC's speaker encoder", "pretrained_bak_5805000.pt"
SPEAKER_URL = (
    "https://github.com/OlaWod/FreeVC/raw/60032a7b1b030831ae17a4b6959656d88df6cc9c/"
    f"speaker_encoder/ckpt/{SPEAKER_FILE}"
)
SPEAKER_SIZE = 17_000_000  # bytes, about
UNUSED = "enc_q."  # the posterior of the target's spectrogram, for training alone


class FreeVC:
    """Converts by WavLM's features and a speaker embedding; the source's timing is kept.

    Args:
        weights: the file of the networks; None for its usual place, as for the next.
        wavlm: the file of WavLM-Large.
        speaker: the file of the speaker encoder.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        WeightsMissing: if a file is not on this machine.
        UserError: if a file is something else.
    """

    trained_on = frozenset({"VCTK"})
    networks: tuple[Mapping[str, str], ...] = (
        {"name": "wavlm-large", "use": CONTENT},
        {"name": "ge2e-ppg-vc", "use": CONDITIONED},
    )

    def __init__(
        self,
        weights: str | None = None,
        wavlm: str | None = None,
        speaker: str | None = None,
        device: str = "auto",
    ) -> None:
        self.device = torch_device(device)
        self.weights = (_find_networks(weights), find_wavlm(wavlm), _find_speaker(speaker))
        networks, content, embedding = (w.path for w in self.weights)
        self.model = load_freevc(networks).to(self.device)
        self.wavlm = load_wavlm(content).to(self.device)
        self.speaker_encoder = resemblyzer.load(embedding).to(self.device)

    @staticmethod
    def missing_weights(
        weights: str | None = None,
        wavlm: str | None = None,
        speaker: str | None = None,
        **_: Any,
    ) -> list[WeightsMissing]:
        """See `bench.systems.System`. The networks cannot be downloaded from here."""
        return missing(
            lambda: _find_networks(weights),
            lambda: find_wavlm(wavlm),
            lambda: _find_speaker(speaker),
        )

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`.

        Args:
            source: at any sample rate.
            reference: at any sample rate.
            seed: of the latent's noise, which is drawn on the CPU.

        Returns:
            About as many seconds as `source`, at 16 kHz: 320 samples for each frame of WavLM, of
            which it has one every 320 samples and none for the last 25 ms.

        Raises:
            ValueError: if source or reference is empty, silent, not finite or under 0.05 s.
        """
        for name, waveform in (("source", source), ("reference", reference)):
            if fault := waveform.fault():
                raise ValueError(f"the {name} is {fault}; give it speech")
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            with stage("speaker"):
                speaker = self.embed(reference)
            with stage("features"):
                samples = source.resample(SAMPLE_RATE).samples.to(self.device)
                content = wavlm_features(self.wavlm, samples)[None]
            with stage("vocoder"):
                converted = self.model(content, speaker, generator)[0].float().cpu()
            return Waveform(converted, SAMPLE_RATE)

    def embed(self, reference: Waveform) -> Tensor:
        """The speaker embedding (1, 256) of unit length, of the reference without quiet ends."""
        from librosa.effects import trim  # takes seconds

        speech, _ = trim(reference.resample(SAMPLE_RATE).numpy(), top_db=TRIM)
        windows = torch.from_numpy(resemblyzer.windows_of(speech))
        return F.normalize(self.speaker_encoder(windows.to(self.device)).mean(0, keepdim=True))


def load_freevc(path: str | Path, **sizes: Any) -> FreeVCNetwork:
    """The networks from a published file, on the CPU, ready to convert.

    Args:
        path: PyTorch's format, the tensors under "model"; nothing in it is executed.
        sizes: arguments of `FreeVCNetwork` where the file's model is not the published size.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    how = f"get it from {PLACE}"
    state = read_state(path, NAME, how).get("model")
    if not isinstance(state, dict):
        raise UserError(f"{path} is not {NAME}: it has no state dict 'model'; {how}")
    state = {key: value for key, value in state.items() if not str(key).startswith(UNUSED)}
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = FreeVCNetwork(**sizes)
    load_state(model, without_weight_norm(state), path, NAME, how)
    return model.requires_grad_(False).eval()


def _folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / "freevc"


def _find_networks(given: str | None) -> Weights:
    path = _folder() / FILE
    return find(
        NAME,
        given=given,
        candidates=[path],
        how=f"download {FILE} from {PLACE} by hand and save it as {short(path)}",
        sha256=None,  # its authors publish none
        licence="MIT",
    )


def _find_speaker(given: str | None) -> Weights:
    path = _folder() / SPEAKER_FILE
    return find(
        SPEAKER_NAME,
        given=given,
        candidates=[path],
        how=WebFile(SPEAKER_URL, path, None, SPEAKER_SIZE),
        sha256=None,  # its authors publish none
        licence="MIT",
    )
