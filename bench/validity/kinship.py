"""Kinship: was a system made with the network that judges it?

A system declares the networks that it was made with (`bench.systems.UsedNetwork`), a judge those
that it judges with (its attribute `networks`). Where one network is in both, or two of one family
are, a score may say more about the network than about the system: four grades, from the strongest.

    optimised on      the judge's network was a loss of the system's training
    selected on       its scores chose the system's checkpoint, settings or recipe
    conditioned on    the system converts with the judge's network: its speaker embedding, its
                      content features, or layers of it
    same family       any use of another network of the same family

What is not declared is unknown and has no mark: an absent mark does not show that there is none.
docs/methods/kinship.md has the known cases with their sources.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bench.systems import (
    BUILT,
    CONDITIONED,
    CONTENT,
    OPTIMISED,
    SELECTED,
    USES,
    UsedNetwork,
    networks_in,
)

OPTIMISED_ON, SELECTED_ON = "optimised on", "selected on"
CONDITIONED_ON, SAME_FAMILY = "conditioned on", "same family"
GRADES = (OPTIMISED_ON, SELECTED_ON, CONDITIONED_ON, SAME_FAMILY)  # from the strongest
# Use of a network → grade, where the judge has the same network.
GRADE_OF: Mapping[str, str] = {
    OPTIMISED: OPTIMISED_ON,
    SELECTED: SELECTED_ON,
    CONDITIONED: CONDITIONED_ON,
    CONTENT: CONDITIONED_ON,
    BUILT: CONDITIONED_ON,
}

_WHISPER_SIZES = (
    *("tiny", "base", "small", "medium", "large", "large-v1", "large-v2", "large-v3"),
    *("large-v3-turbo", "turbo", "tiny.en", "base.en", "small.en", "medium.en"),
)
# Networks by family. A network that was made from another is in that one's family. The name of a
# family alone is for systems whose publication does not name the size.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "ge2e": ("ge2e", "ge2e-resemblyzer", "ge2e-ppg-vc"),
    "wavlm": (
        *("wavlm", "wavlm-base", "wavlm-base-plus", "wavlm-large"),
        *("wavlm-base-plus-sv", "wavlm-large-finetune"),
    ),
    "hubert": (
        *("hubert", "hubert-base", "hubert-base-ls960", "hubert-large", "hubert-large-ll60k"),
        *("hubert-large-ls960-ft", "hubert-large-superb-er", "contentvec"),
    ),
    "wav2vec2": (
        *("wav2vec2", "wav2vec2-base", "wav2vec2-large", "wav2vec2-large-960h-lv60-self"),
        *("xls-r", "wav2vec2-xls-r-300m", "mms-300m"),
        # trained on wav2vec 2.0's layers, or distilled from XLS-R
        *("utmos22-strong", "distillmos", "scoreq"),
    ),
    "whisper": (
        "whisper",
        *(f"whisper-{size}" for size in _WHISPER_SIZES),
        "glm-4-voice-tokenizer",
    ),
    "vq-wav2vec": ("vq-wav2vec",),
    "campplus": ("campplus", "campplus-cn-common", "campplus-cn-en-common"),
    "eres2net": ("eres2net", "speech-eres2net-sv-en-voxceleb-16k"),
    "ecapa": (
        *("ecapa", "spkrec-ecapa-voxceleb", "ecapa-small"),
        "accent-id-commonaccent-ecapa",  # fine-tuned from the second by its authors' recipe
    ),
    "hybridformer": ("hybridformer",),
    "dnsmos": ("dnsmos-p835", "dnsmos-p808"),
    "dnsmos-pro": ("dnsmos-pro",),
    "paraformer": ("paraformer-zh",),
    "pocketsphinx": ("pocketsphinx-en-us",),
}
NETWORKS: Mapping[str, str] = {name: family for family, names in FAMILIES.items() for name in names}
# SHA-256 of published files of weights → their network, whatever they are called somewhere else.
FILES: Mapping[str, str] = {
    # campplus_cn_en_common.pt of iic/speech_campplus_sv_zh_en_16k-common_advanced (ModelScope)
    "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199": "campplus-cn-en-common",
    # pytorch_model.bin of superb/hubert-large-superb-er
    "f9e5f9386285300a3e5e7d7f6852f578fec7bb0cc75e89661a3f98db7112237d": "hubert-large-superb-er",
    # this project's copy (bench/judges/data/resemblyzer)
    "d7c758d7cea0568ec1fced593a65869c16b7d22e4a202b48ab98f5d5dc371d8d": "ge2e-resemblyzer",
    # pretrained.pt of resemble-ai/Resemblyzer, and of DiffVC's speaker encoder
    "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e": "ge2e-resemblyzer",
}
# How the predicates of `USES` begin, of one system and of several.
PLURALS = {"was ": "were ", "is ": "are ", "takes its ": "take their "}
ENDINGS = (".pt", ".pth", ".ckpt", ".safetensors", ".onnx")


@dataclass(frozen=True)
class Kinship:
    """How a system is kin to a judge.

    Attributes:
        grade: of `GRADES`.
        network: the system's network and its use.
        judged_by: the judge's network.
    """

    grade: str
    network: UsedNetwork
    judged_by: str

    @property
    def same_network(self) -> bool:
        """Whether the system's own network judges it, not only one of the same family."""
        return self.grade != SAME_FAMILY

    def sentence(self, system: str | Sequence[str], judge: str) -> str:
        """The kinship in words, without a full stop, of one system or several."""
        several = [system] if isinstance(system, str) else list(system)
        predicate = USES[self.network.use]
        for one, many in PLURALS.items():
            if len(several) > 1 and predicate.startswith(one):
                predicate = many + predicate.removeprefix(one)
        named = " and ".join(filter(None, (", ".join(several[:-1]), several[-1])))
        made = f"{named} {predicate} {self.network.name}"
        if self.same_network:
            return f"{made}, the network of {judge}"
        return f"{made}, of one family with {self.judged_by} of {judge}"


def canonical(name: str, sha256: str = "") -> str:
    """The name by which a network is compared: without owner, case, underscores and file ending.

    Args:
        name: "microsoft/wavlm-large", "wavlm_large_finetune.pth".
        sha256: of its file; if that is one of `FILES`, the file decides.
    """
    if sha256 in FILES:
        return FILES[sha256]
    plain = PurePosixPath(name.strip().lower().replace("_", "-")).name
    ending = next((e for e in ENDINGS if plain.endswith(e)), "")
    return plain.removesuffix(ending)


def family_of(name: str) -> str | None:
    """The family of a network by its canonical name; None if it is not in `NETWORKS`."""
    return NETWORKS.get(name)


def kinship(
    networks: Iterable[UsedNetwork], judged_by: Iterable[str], files: Iterable[str] = ()
) -> Kinship | None:
    """The strongest kinship of a system to a judge; None if none is declared.

    Args:
        networks: that the system was made with.
        judged_by: names of the judge's networks.
        files: SHA-256 of the judge's files of weights.
    """
    judged = {canonical(name): name for name in judged_by}
    hashes = {sha256: FILES.get(sha256, "") for sha256 in files}
    judged.update({name: name for name in hashes.values() if name})
    families: dict[str, str] = {}
    for name, given in judged.items():
        if (family := family_of(name)) is not None:
            families.setdefault(family, given)
    kin = []
    for network in networks:
        name = canonical(network.name, network.sha256)
        if name in judged or (network.sha256 and network.sha256 in hashes):
            kin.append(Kinship(GRADE_OF[network.use], network, judged.get(name, network.name)))
        elif (family := family_of(name)) is not None and family in families:
            kin.append(Kinship(SAME_FAMILY, network, families[family]))
    return min(kin, key=lambda k: GRADES.index(k.grade), default=None)


def kinships(facts: Mapping[str, Any]) -> dict[tuple[str, str], Kinship]:
    """The kinships of a run: (system, judge) → how they are kin. Pairs without any are left out.

    Args:
        facts: of the run (`bench.results.ScoredRun.facts`); runs of earlier versions, and systems
            and judges that declare no networks, have none.

    Raises:
        UserError: if a record of networks is damaged.
    """
    related = {}
    for system in facts.get("systems", {}):
        networks = declared_networks(facts, system)
        for judge, about in facts.get("judges", {}).items():
            names = about.get("networks")
            if not networks or not isinstance(names, list):
                continue
            files = [str(w.get("sha256")) for w in about.get("weights", ()) if w]
            if kin := kinship(networks, map(str, names), files):
                related[str(system), str(judge)] = kin
    return related


def declared_networks(facts: Mapping[str, Any], system: str) -> tuple[UsedNetwork, ...] | None:
    """The networks that a system of a run declares; None if it declares none.

    Raises:
        UserError: if the record is damaged.
    """
    declared = facts.get("systems", {}).get(system, {}).get("networks")
    return None if declared is None else networks_in(declared, f"run.json: system {system}")
