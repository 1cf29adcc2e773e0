"""Settings of the command line: overrides, names, trial lists, and the errors of wrong ones."""

import inspect
from contextlib import suppress
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from bench.cli.settings import FOLDER, GROUPS, load, options
from bench.errors import UserError
from bench.objects import DECLARATIONS, build
from bench.run.judges import plain
from bench.systems import KINDS, declared_facts, facts_of
from bench.weights.find import WeightsMissing

FILES = sorted(path for group in GROUPS for path in (FOLDER / group).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_yaml_names_every_argument_of_its_class_and_no_other(path: Path):
    settings = OmegaConf.load(path)
    if "system" in settings:  # a demo page, which brings its systems along: see below
        assert list(settings) == ["defaults", "suite", "system"]
        settings = settings.suite
    assert list(settings) == [path.stem]
    node = OmegaConf.to_container(settings[path.stem], resolve=False)
    given_by_the_harness = {"name", "limit"} if path.parent.name == "suite" else set()
    values = [value for value in node.values() if isinstance(value, dict)]
    parts = [value for value in values if "_target_" in value]  # such as an encoder
    for part in (node, *parts):
        target = get_object(part.pop("_target_"))
        parameters = dict(inspect.signature(target).parameters)
        open_ended = [n for n, p in parameters.items() if p.kind is p.VAR_KEYWORD]
        named = set(parameters) - set(open_ended) - given_by_the_harness
        given = set(part) - set(DECLARATIONS)
        assert named <= given if open_ended else named == given


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_yaml_begins_with_a_sentence_for_the_listing(path: Path):
    assert len(options(path.parent.name)[path.stem]) > 20


def test_every_system_of_the_listing_is_one():
    config = load([f"system=[{','.join(options('system'))}]"])
    for name, node in config.system.items():
        if OmegaConf.missing_keys(node):
            continue
        with suppress(WeightsMissing):  # of systems whose published weights are a download
            assert facts_of(build(node, f"system {name}"), name)
        assert declared_facts(plain(node), name).kind in KINDS


def test_a_value_that_only_the_user_knows_is_asked_for():
    config = load(["system=takin_vc", "system.takin_vc.checkpoint=???"])
    with pytest.raises(UserError, match=r"it needs a value: system\.takin_vc\.checkpoint=…"):
        build(config.system.takin_vc, "system takin_vc")


def test_a_dotted_path_is_a_users_system():
    config = load(["system=[source,tests.support.fakes.Louder]", "+system.louder.gain=3"])
    assert list(config.system) == ["source", "louder"]
    assert build(config.system.louder, "system louder").gain == 3


def test_a_group_can_be_a_single_name_or_empty():
    assert list(load(["suite=mini_cross_gender"]).suite) == ["mini_cross_gender"]
    assert list(load(["report=[]"]).report) == []


@pytest.mark.parametrize(
    ("overrides", "expected_message"),
    [
        (["system=wrold"], r"unknown system 'wrold'; did you mean 'world'\? known: "),
        (["suite=[mini_cros_gender]"], r"did you mean 'mini_cross_gender'\?"),
        (
            ["judge=[utmos,nope]"],
            r"unknown judge 'nope'; known: accent_commonaccent, cer_paraformer, ",
        ),
        (["limt=3"], "limt"),
        (["system.wrold.frame_period=3"], "wrold"),
        (["limit=0"], "limit=0: must be a positive number"),
        (["limit=many"], "limit='many'"),
        (["limit=true"], "limit=True"),
        (["overwrite=maybe"], "overwrite='maybe': must be true or false"),
        (["cache=null"], "cache=None: must be a path"),
        (["seed=x"], "seed='x': must be a whole number"),
        (["device=cud"], r"device=cud: no such device; did you mean 'cuda'\? known: auto, cpu"),
        (["device=null"], "device=None: no such device; known: auto, cpu, cuda"),
        (["device=cuda:99"], r"device=cuda:99: torch finds .* on this machine; device=auto takes"),
        (["name=../../etc"], r"name='../../etc'"),
        (["name="], "name="),
        (["system=[world"], r"'system=\[world' is not a setting; write name=value"),
        (["nonsense"], "'nonsense' is not a setting"),
        (["preset=foo"], r"unknown preset 'foo'; known: knn_vc, offline, "),
        (["preset=takin"], r"unknown preset 'takin'; did you mean 'takin_paper'\? known: knn_vc, "),
        (["preset='kn_vc'"], r"did you mean 'knn_vc'\?"),
        (["preset="], r"unknown preset ''; known: knn_vc"),
        (["preset=null"], r"unknown preset 'null'; known: knn_vc"),
    ],
)
def test_a_typo_is_one_line_that_names_it_and_what_is_known(overrides, expected_message):
    with pytest.raises(UserError, match=expected_message) as caught:
        load(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "''", '""', "' '"])
@pytest.mark.parametrize("name", ["outputs", "cache", "corpora", "wavs"])
def test_a_path_that_is_empty_is_not_the_current_folder(name, value):
    with pytest.raises(UserError, match=rf"^{name}=' ?': must be a \w+; leave it out for"):
        load([f"{name}={value}"])


@pytest.mark.parametrize(
    ("overrides", "first", "second"),
    [
        (["system=[source,evil.Source]"], "source", "evil.Source"),
        (["system=[one.Mine,other.Mine]"], "one.Mine", "other.Mine"),
        (["system=[one.X]", "+system.x._target_=other.X"], "one.X", "other.X"),
        (["+system.x._target_=a.X", "+system.x._target_=b.Y"], "a.X", "b.Y"),
        (["report=[terminal,other.Terminal]"], "terminal", "other.Terminal"),
        (["judge=[dnsmos,other.Dnsmos]"], "dnsmos", "other.Dnsmos"),
    ],
)
def test_two_entries_of_one_name_are_both_named_with_how_to_rename_one(overrides, first, second):
    group = overrides[0].lstrip("+").partition("=")[0].partition(".")[0]
    with pytest.raises(UserError) as caught:
        load(overrides)
    message = str(caught.value)
    assert message.startswith(f"{group} {first} and {group} {second} would both be called ")
    assert message.endswith(f"in place of {second} write +{group}.other_name._target_={second}")


def test_an_entry_that_is_named_twice_counts_once():
    twice = "system=[source,source,tests.support.fakes.Louder,tests.support.fakes.Louder]"
    assert list(load([twice]).system) == ["source", "louder"]


def test_finished_wavs_are_a_system_of_their_folders_name(tmp_path):
    assert list(load([f"wavs={tmp_path}/source"]).system) == ["source", "target", "wavs_source"]
    named = load([f"wavs={tmp_path}/world", "system=[source,world]"])
    assert list(named.system) == ["source", "world", "wavs_world"]
    assert list(load([f"wavs={tmp_path}/world"]).system) == ["source", "target", "world"]
    assert load(["wavs=null"]).wavs is None


@pytest.mark.parametrize(
    ("node", "expected_message"),
    [
        ({"_target_": "no_such_package.Thing"}, r"system x.*: .*no_such_package"),
        ({"_target_": "tests.support.fakes.Loder"}, r"system x.*: .*Loder"),
        ({"_target_": "tests.support.fakes.Louder", "gian": 2}, r"system x.*: .*gian"),
        ({"gain": 2}, r"system x.*: no _target_"),
    ],
)
def test_a_class_that_cannot_be_built_is_named(node, expected_message):
    with pytest.raises(UserError, match=expected_message) as caught:
        build(OmegaConf.create(node), "system x")
    assert "\n" not in str(caught.value)


def test_groups_have_a_folder_each():
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {
        *GROUPS,
        "executor",
        "preset",
    }


@pytest.mark.parametrize("demo", ["demo_takin_vc", "demo_stablevc"])
def test_a_demo_page_brings_the_systems_that_it_publishes(demo):
    brought = OmegaConf.load(FOLDER / "suite" / f"{demo}.yaml").system
    config = load([f"suite={demo}", f"suite.{demo}.root=clone"])
    assert list(config.system) == ["source", *brought]
    for node in brought.values():
        target = get_object(node["_target_"])
        assert set(node) - {"_target_", "_networks_"} == set(inspect.signature(target).parameters)
        assert {"secs", "wer", "utmos", "by"} == set(node.published)


def test_a_list_of_trials_is_a_suite_and_names_the_run():
    config = load(["suite=lists/my_trials.v1.jsonl", "root=corpus"])
    assert config.name == "my_trials"
    node = config.suite.my_trials
    assert (node.manifest, node.root) == ("lists/my_trials.v1.jsonl", "corpus")
    both = load(["suite=[mini_cross_gender,trials.jsonl]", "root=corpus", "name=both"])
    assert (list(both.suite), both.name) == (["mini_cross_gender", "trials"], "both")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["suite=trials.jsonl"], "needs the folder of its recordings: root=FOLDER"),
        (["suite=[mini_cross_gender,a/mini_cross_gender.v2.jsonl]", "root=c"], "would both be"),
        (["suite=trials.jsonl", "root=''"], "root='': must be the folder of a corpus, or null"),
    ],
)
def test_a_mistake_in_a_list_of_trials_is_one_line(overrides, message):
    with pytest.raises(UserError, match=message):
        load(overrides)
