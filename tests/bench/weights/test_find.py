"""Where weights are searched for, how they are downloaded, and what is refused."""

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import constants

from bench.errors import UserError
from bench.weights import find as weights
from bench.weights.find import HubFiles, WebFile, WeightsMissing, find, find_folder
from tests.support.file_server import serving

HUB = HubFiles("owner/name", files=("config.json",), either=("a.safetensors", "a.bin"), size=7)


def cached(monkeypatch: pytest.MonkeyPatch, root: Path, files: list[str]) -> Path:
    """A cache of the hub that holds these files of owner/name."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    repository = root / "models--owner--name"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    for file in files:
        (snapshot / file).write_text(file)
    return snapshot


def test_the_hubs_cache_is_read_without_a_connection(tmp_path, monkeypatch) -> None:
    snapshot = cached(monkeypatch, tmp_path, ["config.json", "a.bin"])
    folder, found = find_folder("Model", HUB, given=None, licence="MIT")
    assert folder == snapshot
    assert [Path(w.path).name for w in found] == ["config.json", "a.bin"]
    assert found[1].sha256 == hashlib.sha256(b"a.bin").hexdigest()


def test_the_better_format_comes_first(tmp_path, monkeypatch) -> None:
    cached(monkeypatch, tmp_path, ["config.json", "a.bin", "a.safetensors"])
    _, found = find_folder("Model", HUB, given=None, licence="MIT")
    assert Path(found[1].path).name == "a.safetensors"


def test_half_a_model_is_missing_and_the_command_gets_the_rest(tmp_path, monkeypatch) -> None:
    cached(monkeypatch, tmp_path, ["config.json"])
    with pytest.raises(WeightsMissing) as error:
        find_folder("Model", HUB, given=None, licence="MIT")
    assert str(error.value) == (
        "Model: no a.safetensors or a.bin of owner/name in the cache of the hub; get them: "
        "hf download owner/name config.json a.safetensors"
    )
    assert error.value.download == HUB


def test_another_file_under_the_published_name_is_refused(tmp_path, monkeypatch) -> None:
    cached(monkeypatch, tmp_path, ["config.json", "a.bin"])
    with pytest.raises(UserError, match=r"a\.bin has sha256 [0-9a-f]{12}…, not the published 00"):
        find_folder("Model", HUB, given=None, licence="MIT", sha256={"a.bin": "0" * 64})


def test_a_given_folder_is_taken_as_it_is_or_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no a\.safetensors or a\.bin; correct `weights`"):
        find_folder("Model", HUB, given=tmp_path, licence="MIT")
    (tmp_path / "a.bin").write_text("x")
    folder, _ = find_folder("Model", HUB, given=tmp_path, licence="MIT", sha256={"a.bin": "0" * 64})
    assert folder == tmp_path


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serving({"/w.pt": b"weights"}) as running:
        yield running


def test_a_download_is_stored_where_the_judge_searches(server, tmp_path) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    file = WebFile(f"{server.address}/w.pt", tmp_path / "cache" / "w.pt", sha256=sha256)
    arguments = {"given": None, "candidates": [file.path], "sha256": sha256, "licence": "MIT"}
    with pytest.raises(WeightsMissing) as error:
        find("Model", how=file, **arguments)
    assert "curl -L --create-dirs -o" in str(error.value)
    error.value.download.fetch()
    assert find("Model", how=file, **arguments).path == str(file.path)
    assert server.requests == [None]


def test_a_download_that_is_not_the_published_file_is_not_kept(server, tmp_path) -> None:
    file = WebFile(f"{server.address}/w.pt", tmp_path / "w.pt", sha256="0" * 64)
    with pytest.raises(UserError, match="not the published 000000000000…; it was removed"):
        file.fetch()
    assert list(tmp_path.iterdir()) == []


def test_offline_mode_sends_no_request(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        WebFile(f"{server.address}/w.pt", tmp_path / "w.pt", sha256="0" * 64).fetch()
    with pytest.raises(UserError, match="owner/name: HF_HUB_OFFLINE is set"):
        HUB.fetch()
    assert server.requests == []


def test_no_connection_to_the_hub_is_one_line(monkeypatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match=r"owner/name/config\.json: no download \(no route\)"):
        HUB.fetch()


def test_the_next_format_is_fetched_where_a_repository_has_only_that(monkeypatch) -> None:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    asked = []

    def download(repository: str, file: str, revision: str | None) -> None:
        asked.append(file)
        if file == "a.safetensors":
            raise RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights, "hf_hub_download", download)
    HUB.fetch()
    assert asked == ["config.json", "a.safetensors", "a.bin"]
