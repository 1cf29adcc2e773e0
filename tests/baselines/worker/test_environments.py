"""Environments: installed whole or not at all, by licences that were read."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from baselines.worker import environments
from baselines.worker.environments import Environment, EnvironmentRecipe, install, remove
from baselines.worker.system import IsolatedBaseline
from bench.__main__ import main
from bench.errors import UserError
from tests.baselines.worker.test_worker import SPEECH

BODY = (Path(__file__).parents[2] / "support" / "adapters" / "gain.py").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of environments."""
    monkeypatch.setenv("VCBENCH_ENVIRONMENTS", str(tmp_path / "environments"))
    return tmp_path / "environments"


@pytest.fixture
def adapter(tmp_path, monkeypatch, folder):
    """Writes an adapter with a recipe, which is then one of the project's."""
    monkeypatch.setattr(environments, "ADAPTERS", tmp_path / "adapters")
    (tmp_path / "adapters").mkdir()

    def write(**recipe):
        recipe = {"licences": {"code": "MIT"}, **recipe}
        path = tmp_path / "adapters" / "mine.py"
        line = next(line for line in BODY.splitlines() if line.startswith("ENVIRONMENT"))
        path.write_text(BODY.replace(line, f"ENVIRONMENT = {recipe!r}"))
        return path

    return write


def interpreter(version):
    """A Python of this version that runs, of pyenv or on the path; None if there is none."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [*map(str, root.glob(f"versions/{version}.*/bin/python")), f"python{version}"]
    for candidate in filter(shutil.which, candidates):
        if subprocess.run([candidate, "-c", "0"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["baseline", *arguments])
    return ended.value.code


def test_install_shows_the_licences_and_leaves_an_environment_with_a_receipt(
    adapter, folder, capsys
):
    adapter(licences={"code": "MIT", "weights": "Apache-2.0"})
    assert run("install", "mine") == 0
    out = capsys.readouterr().out
    assert "licence of the code: MIT" in out
    assert "licence of the weights: Apache-2.0" in out
    receipt = json.loads((folder / "mine" / "receipt.json").read_text())
    assert receipt["licences"] == {"code": "MIT", "weights": "Apache-2.0"}
    assert [p.name for p in folder.iterdir()] == ["mine"]
    assert run("ls") == 0
    assert "packages: installed 20" in capsys.readouterr().out
    assert run("remove", "mine") == 0
    assert list(folder.iterdir()) == []
    assert run("remove", "mine") == 2


@pytest.mark.parametrize("licence", ["GPL-3.0", "CC-BY-NC-4.0", "none stated"])
def test_a_licence_that_is_not_permissive_must_be_accepted(licence, adapter, folder, capsys):
    adapter(licences={"code": "MIT", "weights": licence})
    assert run("install", "mine") == 2
    assert f"read {licence}; if your use is allowed, run:" in capsys.readouterr().err
    assert not folder.exists()
    assert run("install", "mine", "accept=true") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["instal", "mine"], "unknown baseline verb 'instal'; did you mean 'install'"),
        (["install"], "needs a system first"),
        (["install", "mien"], "unknown baseline 'mien'; did you mean 'mine'"),
        (["install", "mine", "form=x"], "baseline install has no setting 'form'"),
        (["install", "mine", "from=/nowhere"], "from=/nowhere: no such folder"),
        (["install", "mine", "accept=yes"], "accept=yes"),
        (["ls", "x"], "'x' is not a setting"),
    ],
)
def test_mistakes_are_named(arguments, message, adapter, capsys):
    adapter()
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_failed_installation_leaves_nothing(adapter, folder, capsys):
    adapter(requirements=["there-is-no-such-package-as-this==1.0"])
    assert run("install", "mine") == 2
    assert "uv pip install failed" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_folder_of_something_else_is_not_touched(adapter, folder, capsys):
    adapter()
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "thesis.txt").write_text("years of work")
    assert run("install", "mine") == 2
    assert "is no environment" in capsys.readouterr().err
    assert (folder / "mine" / "thesis.txt").read_text() == "years of work"
    assert run("remove", "mine") == 2
    assert (folder / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_changed_recipe_asks_for_a_new_installation(adapter, folder):
    environment = Environment.of(adapter())
    install(environment)
    assert environment.missing() == ""
    changed = Environment.of(adapter(requirements=["six==1.17.0"]))
    assert "earlier version of the adapter; vcbench baseline remove mine" in changed.missing()
    with pytest.raises(UserError, match="earlier version"):
        install(changed)


def repository(clone, *texts):
    """Makes a repository with a commit for each text of its file; the hash of the first."""
    clone.mkdir(parents=True)
    git = ["git", "-C", str(clone), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for text in texts:
        (clone / "code.py").write_text(text)
        subprocess.run([*git, "add", "code.py"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", text], check=True)
    command = [*git, "rev-list", "--max-parents=0", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_submodule_is_checked_out_at_a_commit_of_its_own(adapter, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    clone = tmp_path / "local" / "repository"
    commit = repository(clone, "above", "later")
    below = {"path": "third/party", "repository": "owner/below"}
    below["commit"] = repository(clone / "third" / "party", "below", "later")
    path = adapter(repository="owner/name", commit=commit, submodules=[below])
    environment = Environment.of(path)
    install(environment, source=tmp_path / "local")
    assert (environment.folder / "repository" / "code.py").read_text() == "above"
    assert (environment.folder / "repository" / "third/party/code.py").read_text() == "below"
    path.write_text(path.read_text().replace(below["commit"], "0" * 40))
    assert "an earlier version of the adapter" in Environment.of(path).missing()


def test_repository_and_weights_come_from_a_local_folder(adapter, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    commit = repository(tmp_path / "local" / "repository", "first", "second")
    weights = tmp_path / "local" / "weights"
    weights.mkdir()
    (weights / "a.bin").write_text("weights")
    with zipfile.ZipFile(weights / "b.zip", "w") as archive:
        archive.writestr("release/../../c.bin", "packed")
    described = [
        {"path": "a.bin", "url": "https://example.org/a.bin", "sha256": sha256("weights")},
        {"path": "b.zip", "url": "https://example.org/b.zip", "unpack": "b"},
    ]
    path = adapter(repository="owner/name", commit=commit, weights=described)
    environment = Environment.of(path)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set; unset it, or give from=FOLDER"):
        install(environment)
    install(environment, source=tmp_path / "local")
    assert environment.missing() == ""
    assert (environment.folder / "repository" / "code.py").read_text() == "first"
    assert (environment.folder / "weights" / "a.bin").read_text() == "weights"
    assert (environment.folder / "weights" / "b" / "c.bin").read_text() == "packed"
    assert environment.receipt()["weights"]["a.bin"] == sha256("weights")


def test_weights_with_another_hash_are_refused(adapter, folder, tmp_path):
    (tmp_path / "local" / "weights").mkdir(parents=True)
    (tmp_path / "local" / "weights" / "a.bin").write_text("other weights")
    wanted = {"path": "a.bin", "url": "https://example.org/a", "sha256": sha256("weights")}
    environment = Environment.of(adapter(weights=[wanted]))
    with pytest.raises(UserError, match="not the published"):
        install(environment, source=tmp_path / "local")
    assert "a.bin is not in" in environment.missing()
    (tmp_path / "local" / "weights" / "a.bin").write_text("weights")
    install(environment, source=tmp_path / "local")  # resumes: the packages are there
    assert environment.missing() == ""


def test_weights_that_no_tool_can_download_name_their_page(adapter, folder):
    wanted = {"path": "a.pth", "page": "the link in its README"}
    environment = Environment.of(adapter(weights=[wanted]))
    with pytest.raises(UserError, match=r"get it from the link in its README and store it as"):
        install(environment)


def test_a_recipe_is_read_and_never_run(tmp_path):
    path = tmp_path / "hostile.py"
    path.write_text("raise SystemExit('run')\nENVIRONMENT = {'python': '3.11'}\n")
    assert EnvironmentRecipe.of(path) == EnvironmentRecipe(python="3.11")
    path.write_text("ENVIRONMENT = {'python': open('x').read()}\n")
    with pytest.raises(UserError, match="ENVIRONMENT: malformed node"):
        EnvironmentRecipe.of(path)


def test_listing_imports_no_torch(tmp_path):
    check = (
        "import sys\nfrom bench.__main__ import main\n"
        "try: main(['baseline', 'ls'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'baselines.isolated.coqui'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", check], check=True, cwd=tmp_path, env=environment)


@pytest.mark.parametrize(("version", "numpy"), [("3.8", "1.24.4"), ("", "1.26.4")])
def test_an_environment_with_a_clashing_numpy_converts(version, numpy, adapter, folder):
    """numpy 1 in the worker, numpy 2 here: really installed from the package index."""
    python = interpreter(version) if version else sys.executable
    if python is None:
        pytest.skip(f"no Python {version} here")
    path = adapter(requirements=[f"numpy=={numpy}"], packages=["numpy"])
    environment = Environment.of(path)
    try:
        install(environment, python=python)
    except UserError as error:
        if "uv pip install failed" in str(error):
            pytest.skip(f"numpy {numpy} cannot be installed here: {error}")
        raise
    system = IsolatedBaseline(str(path))
    try:
        assert f"numpy {numpy}" in system.versions
        assert f"python {version}" in system.versions
        assert len(system.convert(SPEECH, SPEECH, seed=1).samples) == 16000
    finally:
        system.close()
    assert remove(environment)
