"""Sound and its picture as `data:` addresses, small enough to live inside a page."""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile
from PIL import Image

from bench.audio import Waveform

# Rates in Hz that MP3 knows; other audio goes to the next higher one. MP3 because every browser
# plays it, and because libsndfile notes the exact length in it: a clip decodes to its own duration.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

TOP_HERTZ = 8000  # of every picture, whatever the sample rate: pictures are compared by eye
ROWS = 72
WINDOW_SECONDS = 0.032
COLUMN_SECONDS = 0.016
RANGE_DB = 70  # under the loudest point; what is quieter is white
GREYS = 16  # 4 bits a pixel


@dataclass(frozen=True)
class Clip:
    """A sound that a page can play.

    Attributes:
        audio: `data:audio/mpeg;base64,…`.
        spectrogram: `data:image/png;base64,…`: time to the right, 0–8 kHz upwards on the mel scale.
        seconds: its duration.
    """

    audio: str
    spectrogram: str
    seconds: float

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.audio) + len(self.spectrogram)


def clip(waveform: Waveform) -> Clip:
    """The waveform as MP3 and as a spectrogram. Its level is left as it is."""
    return Clip(
        _address("audio/mpeg", mp3(waveform)),
        _address("image/png", spectrogram_png(waveform)),
        waveform.seconds,
    )


def mp3(waveform: Waveform) -> bytes:
    """An MP3 file of the waveform."""
    rate = next((r for r in MP3_RATES if r >= waveform.sample_rate), MP3_RATES[-1])
    buffer = io.BytesIO()
    samples = np.clip(waveform.resample(rate).numpy(), -1, 1)
    soundfile.write(buffer, samples, rate, format="MP3", subtype="MPEG_LAYER_III")
    return buffer.getvalue()


def spectrogram_png(waveform: Waveform) -> bytes:
    """A PNG of the spectrogram in greys, dark where there is energy: one column every 16 ms."""
    shades = np.round((1 - spectrogram(waveform)) * (GREYS - 1)).astype(np.uint8)
    image = Image.fromarray(shades[::-1].copy()).convert("P")
    image.putpalette([round(255 * grey / (GREYS - 1)) for grey in range(GREYS) for _ in range(3)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=4, optimize=False)
    return buffer.getvalue()


def spectrogram(waveform: Waveform) -> np.ndarray:
    """Levels from 0 (`RANGE_DB` under the loudest, or less) to 1: (ROWS, L), 0 Hz first."""
    rate = waveform.sample_rate
    window = round(WINDOW_SECONDS * rate)
    samples = np.pad(waveform.numpy(), window // 2)
    hop = round(COLUMN_SECONDS * rate)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]  # (L, window)
    power = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1)) ** 2
    starts, widths = _bands(rate, window)
    rows = np.add.reduceat(power, starts, axis=1)[:, :ROWS] / widths  # (L, ROWS): mean of each band
    level = 10 * np.log10(np.maximum(rows, 1e-12))
    return np.clip(1 + (level - level.max()) / RANGE_DB, 0, 1).T


@lru_cache
def _bands(rate: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """FFT bins of ROWS bands, evenly spaced in mel from 0 to TOP_HERTZ.

    Returns:
        (ROWS + 1,) first bin of each band and of what follows; (ROWS,) bins in each band, at least
        one, and infinite for bands above half the sample rate, which are empty.
    """
    # 2595 log10(1 + f / 700): O'Shaughnessy 1987
    edges = 700 * (
        10 ** (np.linspace(0, 2595 * np.log10(1 + TOP_HERTZ / 700), ROWS + 1) / 2595) - 1
    )
    starts = np.minimum(np.round(edges * window / rate).astype(int), window // 2)
    widths = np.maximum(np.diff(starts), 1.0)
    return starts, np.where(edges[:-1] < rate / 2, widths, np.inf)


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
