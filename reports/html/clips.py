"""A sound and its spectrogram as `data:` addresses, small enough to be embedded in a page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import soundfile
from PIL import Image

from bench.audio import Waveform
from reports.spectrogram import spectrogram

# Sample rates of MP3 in Hz; other audio is resampled to the next higher one. MP3 because every
# browser plays it, and because libsndfile stores the exact length: a clip keeps its duration.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

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
        address("audio/mpeg", mp3(waveform)),
        address("image/png", spectrogram_png(waveform)),
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


def address(kind: str, data: bytes) -> str:
    """The data as a `data:` address of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
