"""The names by which presets and checkpoints call the parts of a model.

Settings name a part, and this table says what builds it: `{part: timbre_memory, dim: 256, …}`. A
class may be renamed or moved; its name here stays, so that checkpoints stay readable. Nothing else
can be named, so settings out of a checkpoint run no other code.

A name that ends with `.pretrained` or `.installed` loads public weights, and `shipped` those of a
checkpoint in this package. Such a part stands under `_weights_`. `find_weights` of its class, or a
function of `FINDERS`, finds the files without loading them.
"""

import importlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

# Name → what builds it: module of this package, colon, name in it. A module is imported when one of
# its parts is built.
PARTS: Mapping[str, str] = {
    "hybrid_content": "content:HybridContentEncoder",
    "wavlm": "frontends.wavlm:WavLMFeatures.from_config",
    "wavlm.pretrained": "frontends.wavlm:WavLMFeatures.from_pretrained",
    "hubert_posteriors": "frontends.hubert:HuBERTPosteriors.from_config",
    "hubert_posteriors.pretrained": "frontends.hubert:HuBERTPosteriors.from_pretrained",
    "whisper_encoder": "frontends.whisper:WhisperEncoderFeatures.from_config",
    "whisper_encoder.pretrained": "frontends.whisper:WhisperEncoderFeatures.from_pretrained",
    "whisper_base.installed": "system:installed_whisper_base",
    "hybridformer": "frontends.hybridformer:HybridFormerPPG.from_config",
    "hybridformer.pretrained": "frontends.hybridformer:HybridFormerPPG.from_pretrained",
    "vector_quantizer": "quantize:VectorQuantizer",
    "campplus": "frontends.campplus:CAMPPlus",
    "campplus.pretrained": "frontends.campplus:CAMPPlus.from_pretrained",
    "campplus_voiceprint": "timbre:CAMPPlusVoiceprint",
    "ecapa_voiceprint": "timbre:ECAPAVoiceprint",
    "ecapa_voiceprint.pretrained": "timbre:ECAPAVoiceprint.from_pretrained",
    "mel_voiceprint": "timbre:MelVoiceprint",
    "context_aware_timbre": "timbre:ContextAwareTimbre",
    "timbre_memory": "memory:TimbreMemory",
    "unet_estimator": "estimator:UNetEstimator",
    "conditional_flow": "flow:ConditionalFlow",
    "log_mel": "mel:LogMel",
    "bigvgan": "vocoder:BigVGAN",
    "bigvgan.pretrained": "vocoder:BigVGAN.from_pretrained",
    "vocos": "vocos:Vocos",
    "shipped": "checkpoint:shipped",
}

# What finds the files of public weights, where that is no `find_weights` of the same class.
FINDERS: Mapping[str, str] = {
    "whisper_base.installed": "system:find_whisper_base",
    "shipped": "checkpoint:find_shipped",
}


class UnknownPart(ValueError):
    """A name that no part has; the message gives the nearest one."""


def part(name: object) -> Callable[..., Any]:
    """What builds the part of this name.

    Raises:
        UnknownPart: if there is none.
    """
    if not isinstance(name, str) or name not in PARTS:
        near = get_close_matches(str(name), PARTS, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownPart(f"no part is called {name!r}; {guess}known: {', '.join(PARTS)}")
    return _attribute(PARTS[name])


def finder(name: str) -> Callable[..., Any] | None:
    """What finds the files of a part with public weights; None where it has no files."""
    if name in FINDERS:
        return _attribute(FINDERS[name])
    return getattr(getattr(part(name), "__self__", None), "find_weights", None)


def _attribute(path: str) -> Callable[..., Any]:
    module, _, names = path.partition(":")
    value: Any = importlib.import_module(f"{__package__}.{module}")
    for name in names.split("."):
        value = getattr(value, name)
    return value
