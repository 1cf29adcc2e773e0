"""Settings to models: presets composed by Hydra, and the parts that their YAML describes.

A part is a mapping with its name (`part`, see `takin_vc.parts`) and its arguments. It may have
`_weights_`, another such mapping: where a fresh model gets its public weights.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from takin_vc.model import TakinVC
from takin_vc.parts import UnknownPart, finder, part
from takin_vc.tensors import WeightsError, load_tensors

FOLDER = Path(__file__).parent / "conf"
PARTS = ("content", "voiceprint", "timbre", "memory", "estimator", "flow", "mel", "vocoder")
NEEDED = ("content", "estimator", "flow", "mel", "vocoder")  # of them; the others may be null


class ConfigError(ValueError):
    """Settings that describe no model; the message names the key."""


def presets() -> list[str]:
    """The models that there are settings for."""
    return sorted(path.stem for path in (FOLDER / "model").glob("*.yaml"))


def load(overrides: Sequence[str] = (), name: str = "config") -> dict[str, Any]:
    """The settings of a file of `conf/` with overrides, as plain values.

    Args:
        overrides: in Hydra's form: `model=iclr`, `model.memory=null`, `model.steps=5`.
        name: of the file: "config" has a model, "train" what trains it.

    Raises:
        ConfigError: if an override is not understood.
    """
    try:
        with initialize_config_dir(str(FOLDER), version_base="1.3"):
            config = OmegaConf.to_container(compose(name, list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{reason} (models: {', '.join(presets())})") from error
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def is_number(value: Any, least: float) -> bool:
    """Whether a setting is a finite number, `least` or more."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value < float("inf")


def build_model(config: Mapping[str, Any]) -> TakinVC:
    """The model that the settings under `model` describe, with random weights.

    Widths that follow from other parts are filled in here: of the timbre tokens (mel bands and
    voiceprint), of the context (what the cross-attention gives; without it the content's and the
    voiceprint's) and of the memory.

    Raises:
        ConfigError: if a part is missing, or names or arguments are wrong.
    """
    settings = dict(config)
    missing = [part for part in PARTS if part not in settings]
    if missing:
        raise ConfigError(f"the model's settings lack {', '.join(missing)}; null leaves a part out")
    nodes = {part: settings.pop(part) for part in PARTS}
    for name in NEEDED:
        if not isinstance(nodes[name], Mapping) or "part" not in nodes[name]:
            raise ConfigError(f"{name} is {nodes[name]!r}, not a part with a name (part: …)")

    def built(name: str, **widths: Any) -> Any:
        return None if nodes[name] is None else build({**nodes[name], **widths}, name)

    content, voiceprint, mel = built("content"), built("voiceprint"), built("mel")
    voice_dim = 0 if voiceprint is None else voiceprint.dim
    timbre_dim = mel.n_mels + voice_dim
    timbre = built("timbre", content_dim=content.dim, timbre_dim=timbre_dim)
    memory = built("memory", timbre_dim=timbre_dim)
    widths: dict[str, Any] = {
        "n_mels": mel.n_mels,
        "context_dim": content.dim + voice_dim if timbre is None else timbre.dim,
        "memory_dim": 0 if memory is None else memory.dim,
    }
    if memory is None:
        widths["memory_fusion"] = None
    return _call(
        TakinVC,
        {
            **settings,
            "content": content,
            "voiceprint": voiceprint,
            "timbre": timbre,
            "memory": memory,
            "estimator": built("estimator", **widths),
            "flow": built("flow"),
            "mel": mel,
            "vocoder": built("vocoder"),
        },
        "model",
    )


def load_public_weights(model: TakinVC, config: Mapping[str, Any]) -> None:
    """Gives each part that has `_weights_` in the settings its public weights.

    Raises:
        WeightsError: if weights are missing or of another shape.
    """
    for name, node in weight_nodes(config):
        load_tensors(model.get_submodule(name), donor(node, name).state_dict(), _label(node))


def weight_nodes(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts that have public weights: their names as submodules, and where to get those."""
    for key, value in config.items():
        if key == "_weights_":
            if value is None:
                continue
            if not isinstance(value, Mapping) or "part" not in value:
                raise ConfigError(f"_weights_ is {value!r}: a mapping with a part, or null")
            yield "", dict(value)
        elif isinstance(value, Mapping):
            for name, node in weight_nodes(value):
                yield ".".join(filter(None, (str(key), name))), node


def donor(node: Mapping[str, Any], name: str) -> nn.Module:
    """A part with its public weights, from its `_weights_`."""
    module = build(node, f"{name}._weights_")
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{name}._weights_: {_label(node)} is no module")
    return module


def missing_weights(config: Mapping[str, Any], names: Container[str]) -> list[WeightsError]:
    """Which public weights are not on this machine; no model is built, and nothing downloaded.

    A loader of public weights, such as `BigVGAN.from_pretrained`, has a `find_weights` in the same
    class that takes the same `source` or `folder`.

    Args:
        config: a model's settings.
        names: of the parts to ask about.

    Returns:
        An error a missing model, `MissingWeights` where it can be fetched.
    """
    missing = {}
    for name, node in weight_nodes(config):
        if name not in names:
            continue
        where = f"{name}._weights_"
        _named(node["part"], where)
        find = finder(str(node["part"]))
        if find is None:
            continue
        try:
            _call(find, {key: node[key] for key in ("source", "folder") if key in node}, where)
        except WeightsError as error:
            missing[str(error)] = error
    return list(missing.values())


def build(node: Any, where: str) -> Any:
    """What a part of the settings describes.

    Args:
        node: a mapping with `part`, whose parts are built first; other values stay as they are.
        where: its path in the settings, for errors.

    Raises:
        ConfigError: if no part has this name, or it does not take these arguments.
    """
    if isinstance(node, Mapping):
        values = {
            str(key): build(value, f"{where}.{key}")
            for key, value in node.items()
            if key not in ("part", "_weights_")
        }
        if "part" not in node:
            return values
        return _call(_named(node["part"], where), values, where)
    if isinstance(node, list | tuple):
        return [build(value, where) for value in node]
    return node


def _named(name: Any, where: str) -> Any:
    """What builds the part of this name."""
    try:
        return part(name)
    except UnknownPart as error:
        raise ConfigError(f"{where}: {error}") from error


def _call(target: Any, arguments: Mapping[str, Any], where: str) -> Any:
    try:
        return target(**arguments)
    except TypeError as error:
        # Only of the call itself: what is wrong further in keeps its traceback.
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise ConfigError(f"{where}: {error}") from error
        raise


def _label(node: Mapping[str, Any]) -> str:
    values = [str(value) for key, value in node.items() if key != "part"]
    return f"{node['part']}({', '.join(values)})"
