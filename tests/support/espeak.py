"""Speech by eSpeak NG, in a process of its own: its licence is the GPL.

The library is Debian's libespeak-ng1, or the one in the package espeakng-loader.
"""

import ctypes
import subprocess
import sys
from ctypes.util import find_library
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


def speak(text: str, voice: str, path: Path) -> None:
    """Writes a WAV of `text`; skips the test where there is no eSpeak NG.

    Args:
        text: what is said.
        voice: eSpeak's name of a voice and variant: "en-us+f2", "cmn+m3".
        path: the file.
    """
    if not find_library("espeak-ng") and not find_spec("espeakng_loader"):
        pytest.skip("no eSpeak NG: apt install libespeak-ng1, or pip install espeakng-loader")
    command = [sys.executable, "-m", "tests.support.espeak", text, voice, str(path)]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])


def _library() -> tuple[ctypes.CDLL, int]:
    """The library, initialised, and its sample rate in Hz."""
    data = None
    if path := find_library("espeak-ng"):
        library = ctypes.CDLL(path)
    else:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
    assert rate > 0, f"eSpeak NG cannot be initialised ({rate})"
    return library, rate


def _speak(text: str, voice: str, path: Path) -> None:
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


if __name__ == "__main__":
    _speak(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
