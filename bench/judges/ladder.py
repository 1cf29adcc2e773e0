"""The noise ladder: the self-test of judges that predict naturalness."""

from collections.abc import Callable, Sequence
from itertools import islice, pairwise

import numpy as np

from bench.errors import UserError
from bench.judges import SelfTest
from bench.trials import Utterance

SNRS = (20.0, 10.0, 0.0)  # dB


def add_noise(samples: np.ndarray, snr: float) -> np.ndarray:
    """`samples` with white noise at a signal-to-noise ratio of `snr` dB; always the same noise."""
    noise = np.random.default_rng(0).standard_normal(len(samples))
    level = np.sqrt(np.mean(samples**2) / 10 ** (snr / 10))
    return (samples + level * noise).astype(np.float32)


def noise_ladder(
    predict: Callable[[list[np.ndarray]], Sequence[float]],
    recordings: Sequence[Utterance],
    *,
    sample_rate: int,
    at_least: float,
    drop: float,
    seconds: float = 5.0,
    count: int = 6,
) -> SelfTest:
    """Adds more and more white noise to real recordings: the score must fall each time.

    Random weights can fall step by step too, but neither by as much nor from as high.

    Args:
        predict: clips (T,) → their scores.
        recordings: real speech; the first `count` that are long enough are used.
        sample_rate: of the clips, Hz.
        at_least: what clean recordings reach on average.
        drop: by how much the score falls in all.
        seconds: the shortest recording that is used.
        count: how many.

    Raises:
        UserError: if no recording is long enough.
    """
    loaded = (r.load().resample(sample_rate) for r in recordings)
    long = (clip.numpy() for clip in loaded if clip.seconds >= seconds)
    clips = list(islice(long, count))
    if not clips:
        raise UserError(f"the noise ladder needs a recording of {seconds:g} s or more")
    means = {"clean": float(np.mean(predict(clips)))}
    for snr in SNRS:
        noisy = [add_noise(clip, snr) for clip in clips]
        means[f"{snr:g} dB"] = float(np.mean(predict(noisy)))
    steps = list(means.values())
    falls = all(a > b for a, b in pairwise(steps)) and steps[0] - steps[-1] >= drop
    return SelfTest(
        passed=falls and steps[0] >= at_least,
        findings={
            "clean recordings": f"{steps[0]:.2f} (at least {at_least:g})",
            "with noise": " > ".join(f"{mean:.2f} ({label})" for label, mean in means.items())
            + f", must fall, by {drop:g} in all",
        },
    )
