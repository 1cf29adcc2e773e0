"""Speech by eSpeak NG, through its library.

That is Debian's libespeak-ng1, or the one in the package espeakng-loader.
"""

import ctypes
from ctypes.util import find_library
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
UTF_8 = 1
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, int]:
    """The library, initialised, and its sample rate in Hz; skips the test where there is none."""
    data = None
    if path := find_library("espeak-ng"):
        library = ctypes.CDLL(path)
    elif find_spec("espeakng_loader"):
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
    else:
        pytest.skip("no eSpeak NG: apt install libespeak-ng1, or pip install espeakng-loader")
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
    if rate <= 0:
        pytest.skip(f"eSpeak NG cannot be initialised ({rate})")
    return library, rate


def speak(text: str, voice: str, path: Path) -> None:
    """Writes a WAV of `text`.

    Args:
        text: what is said.
        voice: eSpeak's name of a voice and variant: "en-us+f2", "cmn+m3".
        path: the file.
    """
    library, rate = _library()
    parts: list[bytes] = []

    @CALLBACK
    def collect(samples, count, _events):
        if samples and count:
            parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)
    assert library.espeak_SetVoiceByName(voice.encode()) == 0, f"no voice {voice}"
    said = text.encode()
    assert library.espeak_Synth(said, len(said) + 1, 0, 0, 0, UTF_8, None, None) == 0
    library.espeak_Synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.frombuffer(b"".join(parts), np.int16), rate, subtype="PCM_16")
