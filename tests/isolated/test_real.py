"""Environments from the package index, random weights of the true architectures, conversions.

`make test-isolated`; each environment takes about 5 GB of disk and is removed after its test.
VCBENCH_CLONES names a folder with clones of the repositories that are no packages (Amphion,
HierSpeechpp, seed-vc …); tests that need one are skipped without.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from baselines.worker.environments import Environment, adapter_path, install, remove
from baselines.worker.system import IsolatedBaseline
from bench.__main__ import main
from bench.audio import Waveform
from bench.cli.settings import load
from bench.cli.verbs import systems_of
from bench.errors import UserError
from bench.run.folder import read_table
from bench.stages.convert import read_conversions

RANDOM_WEIGHTS = Path(__file__).parent / "random_weights"
# Adapter → its systems, with settings that are quicker than the defaults.
ADAPTERS = {
    "coqui": {"openvoice_v1": {}, "openvoice_v2": {}, "freevc24": {}, "knn_vc_coqui": {}},
    "chatterbox_vc": {"chatterbox_vc": {}},
    "seed_vc": {"seed_vc": {"steps": 2, "fp16": False}},
    "facodec": {"facodec": {}},
    "hierspeechpp": {"hierspeechpp": {}},
    "seed_vc_v2": {"seed_vc_v2": {"steps": 2, "fp16": False}},
    "vevo_timbre": {"vevo_timbre": {"steps": 2}},
    "x_vc": {"x_vc": {}},
    "vec2wav2": {"vec2wav2": {}},
    "meanvc": {"meanvc": {}},
    "cosyvoice": {"cosyvoice2": {}, "cosyvoice3": {}},
}
SECONDS = 1.5
DRAW_NOTHING = ("knn_vc_coqui", "facodec", "x_vc", "vec2wav2", "cosyvoice3")  # whatever the seed

pytestmark = pytest.mark.isolated


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs an adapter's environment with random weights; what it made is removed."""
    monkeypatch.setenv("VCBENCH_ENVIRONMENTS", str(tmp_path / "environments"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = []

    def make(name):
        environment = Environment.of(adapter_path(name))
        made.append(environment)
        local = tmp_path / name
        (local / "weights").mkdir(parents=True)
        if repository := environment.recipe.repository:
            clone = Path(os.environ.get("VCBENCH_CLONES", "clones")) / repository.partition("/")[2]
            if not clone.is_dir():
                pytest.skip(f"no clone of {repository} at {clone}; VCBENCH_CLONES names the folder")
            (local / "repository").symlink_to(clone.absolute())
        unfetched = "HF_HUB_OFFLINE|cannot be downloaded by a tool"
        with pytest.raises(UserError, match=unfetched):  # the packages, but no weights
            install(environment, source=local, python=python(environment.recipe.python))
        command = [environment.python, RANDOM_WEIGHTS / f"for_{name}.py", local / "weights"]
        variables = {**os.environ, "REPOSITORY": str(environment.folder / "repository")}
        subprocess.run(command, check=True, cwd=tmp_path, env=variables)
        install(environment, source=local)
        shutil.rmtree(local)
        assert environment.missing() == ""
        return environment

    yield make
    for environment in made:
        remove(environment)


def python(version):
    """An interpreter of this version: that of pyenv, which uv does not look for; else by uv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    paths = sorted(root.glob(f"versions/{version}.*/bin/python"))
    return str(paths[-1]) if paths else version


def short(utterance):
    waveform = utterance.load()
    length = int(SECONDS * waveform.sample_rate)
    return Waveform(waveform.samples[:length].clone(), waveform.sample_rate)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_environment_installs_and_its_systems_convert(name, installed, recordings):
    installed(name)
    source, reference = short(recordings[0]), short(recordings[-1])
    for system, quicker in ADAPTERS[name].items():
        (settings,) = systems_of(load([f"system={system}", "device=cpu"])).values()
        arguments = {k: v for k, v in settings.items() if not k.startswith("_")}
        built = IsolatedBaseline(**{**arguments, **quicker})
        try:
            print(system, built.versions)
            first, again, other = (built.convert(source, reference, seed=s) for s in (1, 1, 2))
        finally:
            built.close()
        assert abs(first.seconds - SECONDS) < 0.1
        assert first.sha256 == again.sha256
        assert (first.sha256 != other.sha256) == (system not in DRAW_NOTHING)


def test_two_torch_versions_that_clash_convert_in_one_run(installed, tmp_path, monkeypatch):
    """coqui's torch, chatterbox's torch and this process's differ; one run has all three."""
    for name in ("coqui", "chatterbox_vc"):
        installed(name)
    monkeypatch.chdir(tmp_path)
    systems = ["openvoice_v2", "chatterbox_vc"]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "run",
                "name=two",
                f"system=[source,{','.join(systems)}]",
                "suite=mini_cross_gender",
                "limit=1",
                "judge=[prosody]",
                "device=cpu",
            ]
        )
    assert ended.value.code == 0
    torch = set()
    for name in systems:
        (record,) = read_conversions(Path("outputs/two"), name, "mini_cross_gender").values()
        assert record.status == "ok", record.error
        torch.add(next(p for p in record.origin.split(", ") if p.startswith("torch ")))
    import torch as here

    assert len({*torch, f"torch {here.__version__.partition('+')[0]}"}) == 3
    assert len(read_table(Path("outputs/two") / "scores.csv")) == 3
