"""The untrained baseline: the WORLD vocoder, matched statistics and spectra of the reference."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyworld
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from bench.audio import Waveform
from bench.systems import SELECTED

# D4C (Morise 2016, D4C LoveTrain in his implementation) looks for voicing up to 7.9 kHz; below this
# rate it would read past the spectrum.
MIN_ANALYSIS_RATE = 16000  # Hz

# At this rate Harvest detects the same voicing up to 500 Hz as at 16 kHz, in half the time.
HARVEST_RATE = 4000  # Hz

# Harvest fails on a few samples; this is shorter than any word.
MIN_SECONDS = 0.1

# Envelope values under this share of the largest one (-80 dB) are raised to it: otherwise digital
# silence and empty bands of resampled audio would dominate the statistics.
ENVELOPE_FLOOR = 1e-8

# Below this many voiced frames, 50 ms at the default frame period, there is no voice to imitate.
MIN_VOICED_FRAMES = 10


class World:
    """Voice conversion with the WORLD vocoder and no trained parameter.

    Speech is analysed into F0 (Harvest: the faster DIO detects voicing in only 4 % of some clear
    recordings), spectral envelope (CheapTrick) and aperiodicity (D4C), changed, and synthesised
    again:

    1. log-F0: mean and standard deviation are set to the reference's.
    2. Spectral shape (mel-cepstral coefficients 1 and up): mean and standard deviation of every
       coefficient are set to the reference's, separately for voiced and for other frames.
    3. Voiced frames move toward the mean of the reference frames nearest to them, which step 2 has
       brought into the same space, and the statistics are matched once more, since averaging
       shrinks them.
    4. Each coefficient is limited to the range that it has in the frames of source and reference,
       separately for voiced and for other frames: matching extrapolates frames that are far from
       the mean of the source.
    5. Energy (coefficient 0, a mean of the log envelope) stays the source's but for one gain, which
       makes the mean power the reference's. The gain is smaller where a frame would become more
       energetic than every frame of source and reference. The statistics of energy are not
       matched: its spread depends on how many frames are silence.

    Timing and aperiodicity stay the source's. `borrow` trades intelligibility for similarity to
    the target. The defaults were chosen on LibriSpeech train-clean-100, F0 extractor and `borrow`
    also with a look at the embedded speakers. Steps 4 and 5 have no constants; they were chosen on
    96 trials of 101 other speakers (LibriSpeech train-clean-100, speechocean762): SECS 0.649, WER
    30.1 % and OVRL 2.60 there, without step 4 0.649, 31.7 % and 2.58, and with the statistics of
    energy matched, without steps 4 and 5, 0.641, 32.6 % and 2.47 (the sources: 22.6 % and 3.06).

    Sources: WORLD, Morise et al. 2016, IEICE Trans. E99-D(7); Harvest, Morise 2017, Interspeech;
    linear mapping of log-F0 and nearest neighbours in a space matched to the target without
    parallel speech (INCA), Erro et al. 2010, IEEE Trans. ASLP 18(5); means of 4 nearest neighbours
    (kNN-VC), Baas et al. 2023, Interspeech.

    Args:
        frame_period: from one analysis frame to the next, in ms.
        f0_floor: lowest F0 searched for and synthesised, in Hz.
        f0_ceil: highest F0 searched for and synthesised, in Hz.
        n_cepstra: mel-cepstral coefficients that describe an envelope, including energy.
        neighbours: reference frames that a voiced frame borrows from.
        borrow: how far a voiced frame moves toward them, 0 (step 2 alone) to 1 (all the way).
        smoothing: standard deviation of the Gaussian that smooths this move over time, in ms.

    Raises:
        ValueError: if an argument is out of its range.
    """

    trained_on: frozenset[str] = frozenset()
    # Its defaults and steps 4 and 5 were chosen by the default run's judges, see above.
    networks: tuple[Mapping[str, str], ...] = (
        {"name": "ge2e-resemblyzer", "use": SELECTED},
        {"name": "whisper-base", "use": SELECTED},
        {"name": "dnsmos-p835", "use": SELECTED},
    )

    def __init__(
        self,
        frame_period: float = 5.0,
        f0_floor: float = 71.0,
        f0_ceil: float = 500.0,
        n_cepstra: int = 24,
        neighbours: int = 4,
        borrow: float = 0.5,
        smoothing: float = 10.0,
    ) -> None:
        if frame_period <= 0 or smoothing < 0:
            raise ValueError(
                f"frame_period ({frame_period} ms) must be positive and "
                f"smoothing ({smoothing} ms) not negative"
            )
        if not 0 < f0_floor < f0_ceil:
            raise ValueError(
                f"f0_floor ({f0_floor} Hz) must be above 0 and below f0_ceil ({f0_ceil} Hz)"
            )
        if n_cepstra < 2 or neighbours < 1:
            raise ValueError(
                f"n_cepstra ({n_cepstra}) must be at least 2 "
                f"and neighbours ({neighbours}) at least 1"
            )
        if not 0 <= borrow <= 1:
            raise ValueError(f"borrow ({borrow}) must lie between 0 and 1")
        self.frame_period = frame_period
        self.f0_floor = f0_floor
        self.f0_ceil = f0_ceil
        self.n_cepstra = n_cepstra
        self.neighbours = neighbours
        self.borrow = borrow
        self.smoothing = smoothing

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`.

        A source without voiced frames (a whisper) gets the reference's envelope and stays unvoiced.
        The bandwidth is that of the narrower recording.

        Args:
            source: at any sample rate.
            reference: at any sample rate; a longer one has more frames to borrow from.
            seed: not used; the conversion is deterministic.

        Returns:
            As many samples as `source`, at its sample rate, as loud as `reference` or quieter:
            frames never exceed the energy of all frames of source and reference, and a peak above
            1 is scaled down to 1, since clipping would distort it.

        Raises:
            ValueError: if source or reference is empty, silent, not finite or under 0.1 s, or
                if the reference has next to no voiced speech.
        """
        for name, waveform in (("source", source), ("reference", reference)):
            if fault := waveform.fault():
                raise ValueError(f"the {name} is {fault}; give it speech")
            if waveform.seconds < MIN_SECONDS:
                raise ValueError(
                    f"the {name} lasts {waveform.seconds:.3f} s, too short to analyse; "
                    f"give it at least {MIN_SECONDS} s"
                )
        rate = max(MIN_ANALYSIS_RATE, min(source.sample_rate, reference.sample_rate))
        words, voice = self._analyse(source.resample(rate)), self._analyse(reference.resample(rate))
        if (voiced := int(voice.voiced.sum())) < MIN_VOICED_FRAMES:
            raise ValueError(
                f"the reference has {voiced} voiced frames in {reference.seconds:.2f} s, at least "
                f"{MIN_VOICED_FRAMES} are needed to imitate a voice; give it more speech"
            )
        samples = pyworld.synthesize(
            self._f0(words, voice),
            self._envelope(words, voice, rate),
            words.aperiodicity,
            rate,
            self.frame_period,
        )
        converted = Waveform.from_numpy(samples, rate).resample(source.sample_rate).numpy()
        T = len(source.samples)
        converted = np.pad(converted[:T], (0, max(0, T - len(converted))))
        return Waveform(
            torch.from_numpy(converted / max(1.0, float(np.abs(converted).max()))),
            source.sample_rate,
        )

    def _analyse(self, waveform: Waveform) -> "_Speech":
        x, rate = waveform.numpy().astype(np.float64), waveform.sample_rate
        f0, times = pyworld.harvest(
            waveform.resample(HARVEST_RATE).numpy().astype(np.float64),
            HARVEST_RATE,
            f0_floor=self.f0_floor,
            f0_ceil=self.f0_ceil,
            frame_period=self.frame_period,
        )
        fft_size = pyworld.get_cheaptrick_fft_size(rate, self.f0_floor)
        envelope = pyworld.cheaptrick(x, f0, times, rate, fft_size=fft_size)
        envelope = np.maximum(envelope, ENVELOPE_FLOOR * envelope.max())
        cepstra = pyworld.code_spectral_envelope(envelope, rate, self.n_cepstra)
        return _Speech(f0, cepstra, pyworld.d4c(x, f0, times, rate, fft_size=fft_size))

    def _f0(self, words: "_Speech", voice: "_Speech") -> np.ndarray:
        """F0 of the words in Hz (L,), its logarithm distributed as the voice's; 0 stays 0."""
        f0 = np.zeros_like(words.f0)
        mapped = np.exp(_match(np.log(words.f0[words.voiced]), np.log(voice.f0[voice.voiced])))
        f0[words.voiced] = np.clip(mapped, self.f0_floor, self.f0_ceil)
        return f0

    def _envelope(self, words: "_Speech", voice: "_Speech", rate: int) -> np.ndarray:
        """Spectral envelope of the words (L, bins) in the voice, its mean power the voice's."""
        fft_size = 2 * (words.aperiodicity.shape[1] - 1)
        envelope, like = (
            pyworld.decode_spectral_envelope(cepstra, rate, fft_size)
            for cepstra in (self._cepstra(words, voice), voice.cepstra)
        )
        # Adding x to coefficient 0 multiplies the envelope by e^x.
        headroom = np.exp(max(0.0, voice.cepstra[:, 0].max() - words.cepstra[:, 0].max()))
        return envelope * min(like.mean() / envelope.mean(), headroom)

    def _cepstra(self, words: "_Speech", voice: "_Speech") -> np.ndarray:
        """Mel-cepstra of the words (L, C), their shape moved toward the voice's; energy is kept."""
        voiced = words.voiced
        source = words.cepstra[:, 1:]
        target = voice.cepstra[voice.voiced, 1:]  # (R, C - 1)
        target_unvoiced = voice.cepstra[~voice.voiced, 1:]
        shape = source.copy()
        shape[voiced] = _match(source[voiced], target)
        if voiced.any() and self.borrow > 0:
            k = min(self.neighbours, len(target))
            # k as a list keeps the last axis when k is 1: (L, k).
            _, nearest = cKDTree(target).query(shape[voiced], k=range(1, k + 1))
            move = np.zeros_like(shape)
            move[voiced] = self.borrow * (target[nearest].mean(axis=1) - shape[voiced])
            if self.smoothing > 0:
                move = gaussian_filter1d(move, self.smoothing / self.frame_period, axis=0)
            shape[voiced] = _match(shape[voiced] + move[voiced], target)
        shape[voiced] = _limit(shape[voiced], source[voiced], target)
        if len(target_unvoiced):
            shape[~voiced] = _limit(
                _match(source[~voiced], target_unvoiced), source[~voiced], target_unvoiced
            )
        return np.column_stack([words.cepstra[:, 0], shape])


@dataclass(frozen=True)
class _Speech:
    """WORLD's analysis of speech.

    Attributes:
        f0: (L,) in Hz, 0 where unvoiced.
        cepstra: mel-cepstra of the envelope (L, C), energy first.
        aperiodicity: (L, bins), 0 to 1.
    """

    f0: np.ndarray
    cepstra: np.ndarray
    aperiodicity: np.ndarray

    @property
    def voiced(self) -> np.ndarray:
        """Whether each frame has an F0 (L,)."""
        return self.f0 > 0


def _match(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`values` (L, …) with mean and standard deviation over frames of `like` (R, …)."""
    if len(values) == 0:
        return values
    deviation = values - values.mean(axis=0)
    # A constant has no spread to scale: it becomes the mean.
    spread = np.maximum(deviation.std(axis=0), 1e-6)
    return deviation / spread * like.std(axis=0) + like.mean(axis=0)


def _limit(values: np.ndarray, *analysed: np.ndarray) -> np.ndarray:
    """`values` (L, C), each column limited to its range over all frames of `analysed` (…, C)."""
    known = np.concatenate(analysed)
    return np.clip(values, known.min(axis=0), known.max(axis=0))
