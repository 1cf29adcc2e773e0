"""Rewrites a checkpoint of format 2 in place: python -m takin_vc.tools.upgrade FOLDER

Format 2 named classes by their dotted paths; format 3 names parts (`takin_vc.parts`). The tensors
stay as they are.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from takin_vc.checkpoint import CONFIG, FORMAT, read_settings, write_settings
from takin_vc.tensors import WeightsError

# What format 2 called each part. Nothing is added here: a new part has only its name.
PATHS: Mapping[str, str] = {
    "takin_vc.content.HybridContentEncoder": "hybrid_content",
    "takin_vc.content.WavLMFeatures.from_config": "wavlm",
    "takin_vc.content.WavLMFeatures.from_pretrained": "wavlm.pretrained",
    "takin_vc.content.HuBERTPosteriors.from_config": "hubert_posteriors",
    "takin_vc.content.HuBERTPosteriors.from_pretrained": "hubert_posteriors.pretrained",
    "takin_vc.content.WhisperEncoderFeatures.from_config": "whisper_encoder",
    "takin_vc.content.WhisperEncoderFeatures.from_pretrained": "whisper_encoder.pretrained",
    "takin_vc.system.installed_whisper_base": "whisper_base.installed",
    "takin_vc.content.HybridFormerPPG.from_config": "hybridformer",
    "takin_vc.content.HybridFormerPPG.from_pretrained": "hybridformer.pretrained",
    "takin_vc.quantize.VectorQuantizer": "vector_quantizer",
    "takin_vc.campplus.CAMPPlus": "campplus",
    "takin_vc.campplus.CAMPPlus.from_pretrained": "campplus.pretrained",
    "takin_vc.timbre.CAMPPlusVoiceprint": "campplus_voiceprint",
    "takin_vc.timbre.ECAPAVoiceprint": "ecapa_voiceprint",
    "takin_vc.timbre.ECAPAVoiceprint.from_pretrained": "ecapa_voiceprint.pretrained",
    "takin_vc.timbre.MelVoiceprint": "mel_voiceprint",
    "takin_vc.timbre.ContextAwareTimbre": "context_aware_timbre",
    "takin_vc.memory.TimbreMemory": "timbre_memory",
    "takin_vc.estimator.UNetEstimator": "unet_estimator",
    "takin_vc.flow.ConditionalFlow": "conditional_flow",
    "takin_vc.mel.LogMel": "log_mel",
    "takin_vc.vocoder.BigVGAN": "bigvgan",
    "takin_vc.vocoder.BigVGAN.from_pretrained": "bigvgan.pretrained",
}


def upgrade(folder: Path) -> None:
    """Rewrites the checkpoint's settings.

    Raises:
        WeightsError: if it is of another format than 2, or names a class that is no part.
    """
    settings = read_settings(folder, formats=(2,))
    settings["model"] = _named(settings["model"], folder / CONFIG)
    write_settings({**settings, "format": FORMAT}, folder)


def _named(node: Any, path: Path) -> Any:
    """The settings with names in place of dotted paths; the name stands first."""
    if isinstance(node, list):
        return [_named(value, path) for value in node]
    if not isinstance(node, dict):
        return node
    values = {key: _named(value, path) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return values
    if (name := PATHS.get(str(node["_target_"]))) is None:
        raise WeightsError(f"{path}: {node['_target_']!r} is no part of a model of format 2")
    return {"part": name, **values}


def main(arguments: Sequence[str]) -> int:
    """Runs the command line. Returns 0, or 1 after a line with the error."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if arguments else 1
    try:
        upgrade(Path(arguments[0]))
    except (WeightsError, OSError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments[0]}: a checkpoint of format {FORMAT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
