"""DiffVC: diffusion from an average voice to the target's, by the maximum-likelihood solver.

Popov et al. 2022, "Diffusion-Based Voice Conversion with Fast Maximum Likelihood Sampling Scheme",
ICLR (arXiv 2109.13821). Written after the folder DiffVC of huawei-noah/Speech-Backbones at commit
7782c7a; docs/systems/diffvc.md has the comparison. The speaker embedding is Resemblyzer's (the same
file), the vocoder HiFi-GAN's universal one.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.nets.diffvc import DOWNSAMPLINGS, N_MELS, AverageVoice, Score
from baselines.nets.hifigan import load_hifigan
from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError, choose_one_of
from bench.judges.encoders import resemblyzer
from bench.stages.timing import stage
from bench.systems import CONDITIONED
from bench.weights import Weights
from bench.weights.find import WeightsMissing, find, missing, short
from bench.weights.state import load_state, read_state

SAMPLE_RATE = 22_050  # Hz
N_FFT, HOP = 1024, 256  # samples
HIGHEST = 8000  # Hz, of the mel bands
SPEAKER_STEP = 80  # frames from one window of the speaker encoder to the next; Resemblyzer has 77

SOLVERS = ("ml", "em", "pf")
SILENCES = ("converted", "source", "none")
BETA_MIN, BETA_MAX = 0.05, 20.0  # of the noise schedule, params.py there
ENCODER = {
    "channels": 192,
    "filters": 768,
    "heads": 2,
    "layers": 6,
    "kernel": 3,
    "window": 4,
    "postnet": 128,
}
DECODER = {"channels": 256, "condition": 128, "speaker": 256}

SILENCE, FLOOR = 5, 0.02  # frames of the quietest stretch; share of the noise that remains

# Training corpus → file, its place on Google Drive, and the training data (docs/systems/diffvc.md).
DRIVE = "https://drive.google.com/file/d/{}/view"
PUBLISHED = {
    "libritts": ("vc_libritts_wodyn.pt", "18Xbme0CTVo58p2vOHoTQm8PBGW7oEjAy"),
    "vctk": ("vc_vctk_wodyn.pt", "12s9RPmwp9suleMkBCVetD8pub7wsDAy4"),
}
TRAINED_ON = {
    "libritts": frozenset(
        f"LibriTTS/{split}" for split in ("train-clean-100", "train-clean-360", "train-other-500")
    ),
    "vctk": frozenset({"VCTK"}),
}
VOCODER, VOCODER_PLACE = "generator", "10khlrM645pTbQ4rc2aNEYPba8RFDBkW-"
NAME, VOCODER_NAME = "DiffVC", "HiFi-GAN's universal vocoder"


class DiffVC:
    """Converts by diffusion; the source's timing is kept.

    Args:
        trained: corpus of the published weights, "libritts" or "vctk".
        steps: of the solver.
        solver: "ml" (the paper's), "em" (Euler-Maruyama) or "pf" (Euler on the probability flow).
        silence: where the stretch of noise that is subtracted from the converted mel spectrogram is
            looked for. "converted" is what the authors' notebook does, by mistake, so that its
            outputs are these; "source" is what it means to do; "none" subtracts nothing.
        weights: the file of the networks; None for its usual place, as for the next.
        vocoder: the file of the vocoder.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        WeightsMissing: if a file is not on this machine.
        UserError: if a file is something else, or a setting is unknown.
        ValueError: if `steps` is below 1.
    """

    networks: tuple[Mapping[str, str], ...] = (
        {
            "name": "ge2e-resemblyzer",
            "use": CONDITIONED,
            "sha256": resemblyzer.PRETRAINED_SHA256,
        },
    )

    def __init__(
        self,
        trained: str = "libritts",
        steps: int = 30,
        solver: str = "ml",
        silence: str = "converted",
        weights: str | None = None,
        vocoder: str | None = None,
        device: str = "auto",
    ) -> None:
        for what, value, known in (("solver", solver, SOLVERS), ("silence", silence, SILENCES)):
            if value not in known:
                raise UserError(f"{what}={value}: no such {what}; {choose_one_of(value, known)}")
        if steps < 1:
            raise ValueError(f"steps ({steps}) must be at least 1")
        self.trained_on = self.training_data(trained)
        self.steps, self.solver, self.silence = steps, solver, silence
        self.device = torch_device(device)
        networks, generator = _find_networks(weights, trained), _find_vocoder(vocoder)
        self.weights = (networks, generator)
        self.model = load_networks(networks.path).to(self.device)
        self.vocoder = load_hifigan(generator.path, VOCODER_NAME, _how_vocoder()).to(self.device)
        self.speaker_encoder = resemblyzer.load(resemblyzer.PRETRAINED).to(self.device)

    @staticmethod
    def training_data(trained: str = "libritts", **_: Any) -> frozenset[str]:
        """See `bench.systems.System`.

        Raises:
            UserError: if there are no published weights of that name.
        """
        if trained not in TRAINED_ON:
            known = choose_one_of(str(trained), TRAINED_ON)
            raise UserError(f"trained={trained}: no published weights of that name; {known}")
        return TRAINED_ON[trained]

    @staticmethod
    def missing_weights(
        trained: str = "libritts",
        weights: str | None = None,
        vocoder: str | None = None,
        **_: Any,
    ) -> list[WeightsMissing]:
        """See `bench.systems.System`. They cannot be downloaded from here: the message says how."""
        DiffVC.training_data(trained)
        return missing(lambda: _find_networks(weights, trained), lambda: _find_vocoder(vocoder))

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`.

        Args:
            source: at any sample rate.
            reference: at any sample rate.
            seed: of the diffusion's noise, which is drawn on the CPU.

        Returns:
            As many seconds as `source`, rounded down to whole frames of 256 samples, at 22050 Hz.

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
            words, voice = (
                log_mel(w.resample(SAMPLE_RATE).samples)[None].to(self.device)
                for w in (source, reference)
            )
            with stage("diffusion"):
                mel = self.model.convert(
                    words, voice, speaker, generator, steps=self.steps, solver=self.solver
                )
            if self.silence != "none":
                mel = denoised(mel[0], (mel if self.silence == "converted" else words)[0])[None]
            with stage("vocoder"):
                samples = self.vocoder(mel)[0].float().cpu()
            return Waveform(samples, SAMPLE_RATE)

    def embed(self, reference: Waveform) -> Tensor:
        """The speaker embedding (1, 256) of unit length: the mean of half-overlapping windows."""
        windows = torch.from_numpy(resemblyzer.windows(reference, step=SPEAKER_STEP))
        return F.normalize(self.speaker_encoder(windows.to(self.device)).mean(0, keepdim=True))


class DiffusionVC(nn.Module):
    """Encoder and decoder, with the names of the published tensors.

    Args:
        encoder: sizes of `AverageVoice`.
        decoder: sizes of `Score`.
    """

    def __init__(
        self, encoder: Mapping[str, int] = ENCODER, decoder: Mapping[str, int] = DECODER
    ) -> None:
        super().__init__()
        self.encoder = AverageVoice(**encoder)
        self.decoder = nn.ModuleDict({"estimator": Score(**decoder)})

    def convert(
        self,
        words: Tensor,
        voice: Tensor,
        speaker: Tensor,
        generator: torch.Generator,
        *,
        steps: int,
        solver: str,
    ) -> Tensor:
        """Solves the reverse diffusion from the source's average voice.

        Args:
            words: log mel spectrogram of the source, (1, 80, L).
            voice: that of the reference, (1, 80, R).
            speaker: embedding of the reference, (1, 256).
            generator: of the noise, on the CPU.
            steps: at equal distances from time 1 to 0.
            solver: of `SOLVERS`.

        Returns:
            Log mel spectrogram (1, 80, L).
        """
        L = words.shape[2]
        padding = -L % 2**DOWNSAMPLINGS
        mean, mean_voice = self.encoder(words), self.encoder(voice)
        mask = F.pad(torch.ones_like(words[:, :1]), (0, padding))
        start = F.pad(_diffused(words, mean, 1.0), (0, padding))
        mean = F.pad(mean, (0, padding))

        def noise() -> Tensor:
            return torch.randn(mean.shape, generator=generator).to(mean)

        xt = (start + noise()) * mask
        h = 1 / steps
        for step in range(steps):
            t = 1 - step * h
            time = torch.full((1,), t, device=mean.device)
            score = self.decoder["estimator"](
                xt, mask, mean, _diffused(voice, mean_voice, t), speaker, time
            )
            drift, scale, deviation = coefficients(t, h, solver)
            change = (mean - xt) * drift - score * scale
            if solver != "pf":
                change = change + noise() * deviation
            xt = (xt - change) * mask
        return xt[:, :, :L]


def coefficients(t: float, h: float, solver: str) -> tuple[float, float, float]:
    """Of one step back from `t` to `t` - `h`: of the drift, of the score, of the noise.

    The step is x - (drift (mean - x) - scale score + deviation noise). For "ml" the paper's theorem
    gives omega, kappa and sigma, under which the steps' outcome is the most likely one.
    """
    beta_h = beta(t) * h
    if solver == "pf":
        return beta_h / 2, beta_h / 2, 0.0
    if solver == "em":
        return beta_h / 2, beta_h, math.sqrt(beta_h)
    s = max(0.0, t - h)
    left, right, both = (1 - gamma(*ends) ** 2 for ends in ((0, s), (s, t), (0, t)))
    kappa = gamma(0, s) * right / (gamma(0, t) * beta_h) - 1
    nu, mu = gamma(0, s) * right / both, gamma(s, t) * left / both
    omega = nu / gamma(0, t) + mu - (beta_h / 2 + 1)
    return beta_h / 2 + omega, (1 + kappa) * beta_h, math.sqrt(left * right / both)


def beta(t: float) -> float:
    """The noise schedule at time `t`."""
    return BETA_MIN + (BETA_MAX - BETA_MIN) * t


def gamma(s: float, t: float) -> float:
    """How much of the state at time `s` is left at `t`: e to minus half the integral of beta."""
    return math.exp(-(beta(s) + beta(t)) / 2 * (t - s) / 2)


def _diffused(x: Tensor, mean: Tensor, t: float) -> Tensor:
    """The mean at time `t` of a diffusion from `x` to `mean`."""
    share = gamma(0, t)
    return x * share + mean * (1 - share)


def log_mel(samples: Tensor) -> Tensor:
    """samples (T,) at 22.05 kHz -> log mel spectrogram (80, T // 256), as HiFi-GAN's training.

    A signal under 512 samples, which is too short to be reflected, is padded with zeros first.
    """
    from librosa.filters import mel as mel_filters  # takes seconds

    samples = F.pad(samples, (0, max(0, 2 * HOP - len(samples))))
    samples = samples[: len(samples) // HOP * HOP]
    padding = (N_FFT - HOP) // 2
    padded = F.pad(samples[None, None], (padding, padding), mode="reflect")[0, 0]
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(padded, N_FFT, HOP, window=window, center=False, return_complex=True)
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    filters = mel_filters(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=0, fmax=HIGHEST)
    return (torch.from_numpy(filters.astype(np.float32)) @ magnitude).clamp(min=1e-5).log()


def denoised(mel: Tensor, silent: Tensor) -> Tensor:
    """`mel` less the power of its noise, which is estimated where `silent` is quietest.

    As the authors' notebook has it, with its smoothing over bands, which looks one band too high.

    Args:
        mel: log mel spectrogram (80, L).
        silent: log mel spectrogram (80, L); the 5 frames of least power are looked for in it.

    Returns:
        (80, L); at least 2 % of the noise's power remain in each band.
    """
    power = (2 * mel).exp()
    energy = (2 * silent).exp().sum(0)
    start = 0
    if (L := len(energy)) > SILENCE:
        start = int(energy.unfold(0, SILENCE, 1).sum(1)[: L - SILENCE].argmin())
    noise = power[:, start : start + SILENCE].amin(1)
    padded = F.pad(noise[None], (1, 1), mode="replicate")[0]
    noise = torch.minimum(padded[2:], padded.unfold(0, 3, 1).median(1).values)[:, None]
    return torch.maximum(power - noise, FLOOR * noise).log() / 2


def load_networks(path: str | Path, **sizes: Mapping[str, int]) -> DiffusionVC:
    """Encoder and decoder from a published file, on the CPU, ready to convert.

    Args:
        path: a state dict in PyTorch's format; nothing in it is executed.
        sizes: arguments of `DiffusionVC` where the file's model is not the published size.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    how = "see docs/systems/diffvc.md"
    state = read_state(path, NAME, how)
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = DiffusionVC(**sizes)
    load_state(model, state, path, NAME, how)
    return model.requires_grad_(False).eval()


def _folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / "diffvc"


def _by_hand(file: str, place: str) -> str:
    return f"download {DRIVE.format(place)} by hand and save it as {short(_folder() / file)}"


def _how_vocoder() -> str:
    return _by_hand(VOCODER, VOCODER_PLACE)


def _find_networks(given: str | None, trained: str) -> Weights:
    return _find(f"{NAME} ({trained})", given, *PUBLISHED[trained])


def _find_vocoder(given: str | None) -> Weights:
    return _find(VOCODER_NAME, given, VOCODER, VOCODER_PLACE)


def _find(name: str, given: str | None, file: str, place: str) -> Weights:
    return find(
        name,
        given=given,
        candidates=[_folder() / file],
        how=_by_hand(file, place),
        sha256=None,  # its authors publish none
        licence="MIT",
    )
