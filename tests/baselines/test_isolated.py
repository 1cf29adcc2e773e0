"""Each isolated baseline: an adapter, a YAML and a page that agree."""

from pathlib import Path

import pytest
import yaml

from baselines.commands import SYSTEM, isolated_systems
from baselines.worker.environments import EnvironmentRecipe, adapters
from baselines.worker.system import IsolatedBaseline
from bench.cli.settings import FOLDER, load
from bench.cli.verbs import systems_of
from bench.systems import declared_facts

ROOT = Path(__file__).parents[2]
SYSTEMS = isolated_systems()


def test_the_class_of_the_systems_is_the_class():
    assert f"{IsolatedBaseline.__module__}.{IsolatedBaseline.__qualname__}" == SYSTEM


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_declared_without_being_built(name):
    (settings,) = systems_of(load([f"system={name}"])).values()
    facts = declared_facts(settings, f"system {name}")
    assert facts.kind == "system"
    assert facts.trained_on
    assert SYSTEMS[name] in adapters()


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_has_a_page_with_its_licence_and_its_command(name):
    page = (ROOT / "docs" / "systems" / f"{name}.md").read_text()
    recipe = EnvironmentRecipe.of(adapters()[SYSTEMS[name]])
    for licence in recipe.licences.values():
        assert licence in page
    assert f"vcbench baseline install {name}" in page
    for word in ("Paper", "Code", "Rate", "Training speakers", "Networks", "Verified here"):
        assert word in page, word


@pytest.mark.parametrize("name", adapters())
def test_a_recipe_pins_every_requirement_and_names_every_licence(name):
    recipe = EnvironmentRecipe.of(adapters()[name])
    assert recipe.python
    assert all("==" in requirement for requirement in recipe.requirements)
    assert bool(recipe.repository) == bool(recipe.commit)
    assert recipe.licences.keys() >= {"code", "weights"}
    assert all(w.url.startswith("https://") or w.page for w in recipe.weights)
    assert name in SYSTEMS.values()


def test_no_system_is_named_in_the_harness():
    names = {*SYSTEMS, *SYSTEMS.values()} - {"seed_vc"}  # also a preset and a recipe of training
    for path in (ROOT / "bench").rglob("*.py"):
        text = path.read_text()
        assert not [n for n in names if f'"{n}"' in text], path


def test_yamls_have_no_option_that_the_adapter_does_not_take():
    for path in (FOLDER / "system").glob("*.yaml"):
        for name, settings in yaml.safe_load(path.read_text()).items():
            if settings["_target_"] != SYSTEM:
                continue
            source = adapters()[settings["adapter"]].read_text()
            known = ("_target_", "adapter", "python", "device", "trial_seconds", "load_seconds")
            for key in settings:
                if key not in known and not key.startswith("_"):
                    assert f"{key}: " in source.partition("def __init__")[2], f"{name}: {key}"
