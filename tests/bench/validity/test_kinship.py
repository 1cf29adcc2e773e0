"""Kinship between systems and judges: grades, names, and what a run records of it."""

from pathlib import Path

import pytest
import yaml

from bench.cli.settings import load, options
from bench.cli.verbs import systems_of
from bench.errors import UserError
from bench.judges.encoders.resemblyzer import PACKAGE_SHA256, PRETRAINED_SHA256, Resemblyzer
from bench.judges.secs import SECS
from bench.objects import build
from bench.systems import USES, Facts, UsedNetwork, declared_facts, networks_in
from bench.validity.kinship import (
    CONDITIONED_ON,
    FAMILIES,
    FILES,
    GRADES,
    NETWORKS,
    OPTIMISED_ON,
    SAME_FAMILY,
    SELECTED_ON,
    canonical,
    family_of,
    kinship,
    kinships,
)

MINI = Path(__file__).parents[3] / "takin_vc" / "weights" / "mini"


def graded(*networks, judge, files=()):
    """The grade of a system with networks of (name, use[, sha256]); None without kinship."""
    kin = kinship([UsedNetwork(*network) for network in networks], judge, files)
    return kin and kin.grade


@pytest.mark.parametrize(
    ("use", "grade"),
    [
        ("optimised", OPTIMISED_ON),
        ("selected", SELECTED_ON),
        ("conditioned", CONDITIONED_ON),
        ("content", CONDITIONED_ON),  # it converts with the judge's own features
        ("built", CONDITIONED_ON),
    ],
)
def test_the_use_of_the_judges_network_gives_the_grade(use, grade):
    assert graded(("whisper-base", use), judge=["whisper-base"]) == grade


@pytest.mark.parametrize("use", USES)
def test_any_use_of_another_network_of_the_family_is_the_weakest_grade(use):
    kin = kinship([UsedNetwork("whisper-small", use)], ["whisper-base"])
    assert kin.grade == SAME_FAMILY
    assert not kin.same_network


def test_the_strongest_of_several_kinships_counts():
    both = [("whisper-small", "content"), ("whisper-base", "content"), ("whisper-base", "selected")]
    assert graded(*both, judge=["whisper-base"]) == SELECTED_ON
    assert graded(*both, judge=["whisper-large-v3"]) == SAME_FAMILY
    assert GRADES == ("optimised on", "selected on", "conditioned on", "same family")


def test_networks_of_other_families_and_unknown_ones_are_no_kin():
    assert graded(("whisper-base", "content"), judge=["ge2e-resemblyzer"]) is None
    assert graded(("my-encoder", "conditioned"), judge=["their-encoder"]) is None
    assert graded(judge=["whisper-base"]) is None
    assert graded(("whisper-base", "content"), judge=[]) is None


def test_a_third_partys_network_is_kin_by_its_name_alone():
    assert family_of("my-encoder") is None
    assert graded(("my-encoder", "selected"), judge=["my-encoder"]) == SELECTED_ON


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("microsoft/wavlm-large", "wavlm-large"),
        ("wavlm_large_finetune.pth", "wavlm-large-finetune"),
        ("Whisper-Base", "whisper-base"),
        ("whisper-tiny.en", "whisper-tiny.en"),
        ("campplus_cn_en_common.pt", "campplus-cn-en-common"),
    ],
)
def test_names_are_compared_without_owner_case_and_ending(name, same):
    assert canonical(name) == same
    assert family_of(same) is not None


def test_a_file_of_weights_is_known_under_any_name():
    """DiffVC's speaker encoder is the file of the package Resemblyzer (git blob 47e405a4)."""
    renamed = ("diffvc-speaker-encoder", "conditioned", PACKAGE_SHA256)
    assert graded(renamed, judge=["ge2e-resemblyzer"]) == CONDITIONED_ON
    assert graded(renamed[:2], judge=["ge2e-resemblyzer"]) is None
    private = ("mine", "conditioned", "ab" * 32)
    assert graded(private, judge=["theirs"], files=["ab" * 32]) == CONDITIONED_ON
    assert FILES[PRETRAINED_SHA256] == FILES[PACKAGE_SHA256] == "ge2e-resemblyzer"


def test_no_network_is_in_two_families():
    names = [name for family in FAMILIES.values() for name in family]
    assert len(names) == len(set(names)) == len(NETWORKS)
    assert all(canonical(name) == name for name in names)
    assert set(FILES.values()) <= NETWORKS.keys()


def test_the_judge_of_other_weights_is_of_the_family_only(tmp_path):
    assert SECS(Resemblyzer(device="cpu")).networks == ("ge2e-resemblyzer",)
    other = tmp_path / "trained.pt"
    other.write_bytes(b"weights of another training")
    assert SECS(Resemblyzer(str(other), device="cpu")).networks == ("ge2e",)
    assert graded(("ge2e-resemblyzer", "conditioned"), judge=["ge2e"]) == SAME_FAMILY


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ([{"name": "whisper-base", "use": "contnet"}], r"\[0\]: use is 'contnet'; did you mean 'c"),
        ([{"name": "a", "use": "built"}, {"use": "built"}], r"\[1\]: name is ''; name the network"),
        ([{"name": "a", "use": "built", "sha": "1"}], r"no key 'sha'; did you mean 'sha256'"),
        ([{"name": "a", "use": "built", "sha256": "12"}], "sha256 is '12'; write its 64 digits"),
        ({"name": "a", "use": "built"}, "must be a list such as"),
        ("whisper-base", "must be a list such as"),
        (["whisper-base"], r"write \{name: whisper-base, use: content\}"),
        ([{"name": "a", "use": ["built"]}], "use is "),
    ],
)
def test_a_mistake_is_named_in_one_line(declared, message):
    with pytest.raises(UserError, match=message) as raised:
        networks_in(declared, "system mine")
    assert str(raised.value).startswith("system mine: _networks_")
    assert "\n" not in str(raised.value)


def test_facts_keep_networks_and_tell_none_from_unknown():
    for networks in (
        None,
        (),
        (UsedNetwork("a", "built", "ab" * 32), UsedNetwork("b", "selected")),
    ):
        facts = Facts(networks=networks)
        assert Facts.from_json(facts.to_json()) == facts
    old = {k: v for k, v in Facts().to_json().items() if k != "networks"}
    assert Facts.from_json(old).networks is None  # a record of an earlier version
    with pytest.raises(ValueError, match="use is"):
        Facts.from_json({**old, "networks": [{"name": "a", "use": "b"}]})


def run_json(networks, judged_by, **judge):
    return {
        "systems": {"a": {"networks": networks}, "old": {}},
        "judges": {"secs": {"networks": judged_by, **judge}, "old": {"metrics": []}},
    }


def test_the_kinships_of_a_run_are_those_that_both_declare():
    made = [{"name": "ge2e-resemblyzer", "use": "conditioned"}]
    kin = kinships(run_json(made, ["ge2e-resemblyzer"]))
    assert [*kin] == [("a", "secs")]
    assert kin["a", "secs"].sentence("a", "secs") == (
        "a is conditioned on ge2e-resemblyzer, the network of secs"
    )
    family = kinships(run_json(made, ["ge2e"]))["a", "secs"]
    assert family.sentence("a", "secs") == (
        "a is conditioned on ge2e-resemblyzer, of one family with ge2e of secs"
    )
    assert kinships(run_json(None, ["ge2e-resemblyzer"])) == {}
    assert kinships(run_json(made, None)) == {}
    assert kinships({}) == {}
    by_file = run_json(made, ["x"], weights=[{"sha256": PRETRAINED_SHA256}])
    assert kinships(by_file)["a", "secs"].grade == CONDITIONED_ON


def test_settings_come_before_the_class():
    mini = {"_target_": "takin_vc.system.TakinVCSystem", "checkpoint": str(MINI)}
    assert [(n.name, n.use) for n in declared_facts(mini, "x").networks] == [
        ("whisper-base", "content"),
        # The card: losses of the training, and judges that had a say in the recipe.
        ("whisper-base", "optimised"),
        ("campplus-cn-en-common", "optimised"),
        ("ge2e-resemblyzer", "selected"),
        ("ecapa-small", "selected"),
        ("distillmos", "selected"),
        ("dnsmos-p835", "selected"),
    ]
    other = {**mini, "_networks_": [{"name": "a", "use": "built"}]}
    assert declared_facts(other, "x").networks == (UsedNetwork("a", "built"),)
    assert declared_facts({**mini, "_networks_": []}, "x").networks == ()
    louder = {"_target_": "tests.support.fakes.Louder"}
    assert declared_facts(louder, "x").networks is None


def test_every_declaration_of_the_shipped_settings_is_of_known_networks():
    for overrides in (
        ["system=[world,takin_vc,vocoder,noise]"],
        ["suite=demo_takin_vc", "suite.demo_takin_vc.root=x"],
        ["suite=demo_stablevc", "suite.demo_stablevc.root=x"],
    ):
        for name, settings in systems_of(load(overrides)).items():
            for network in declared_facts(settings, name).networks or ():
                assert family_of(canonical(network.name)) is not None, (name, network)


def test_the_mini_card_declares_in_its_front_matter():
    text = (MINI / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert [*front] == ["networks"]
    assert "# Takin-VC mini" in text.split("---\n")[2]


def test_every_shipped_judge_names_networks_of_a_known_family():
    """Of the judges whose weights are on this machine; the others are built nowhere here."""
    named = {}
    for name in options("judge"):
        node = load([f"judge=[{name}]"]).judge[name]
        try:
            named[name] = getattr(build(node, f"judge {name}"), "networks", None)
        except UserError:  # weights or a package that are not here
            continue
    assert named["secs_resemblyzer"] == ("ge2e-resemblyzer",)
    assert named["secs_ecapa_small"] == ("ecapa-small",)
    assert named["dnsmos"] == ("dnsmos-p835", "dnsmos-p808")
    assert named["prosody"] == ()
    names = [canonical(network) for networks in named.values() for network in networks or ()]
    assert all(family_of(name) is not None for name in names)
