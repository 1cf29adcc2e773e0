"""Where weights are looked for, how they are got, and what is refused."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from bench.errors import UserError
from bench.weights import find as weights
from bench.weights.find import HubFiles, WebFile, WeightsMissing, find, find_folder

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
def server(tmp_path, monkeypatch):
    """The weights' address, served from here; counts what was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"weights")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{serving.server_address[1]}/w.pt"
        real = weights.urllib.request.urlopen
        monkeypatch.setattr(
            weights.urllib.request, "urlopen", lambda url, timeout: real(address, timeout=timeout)
        )
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield asked
        serving.shutdown()


def test_a_download_is_kept_where_the_judge_looks(server, tmp_path) -> None:
    file = WebFile(
        "https://example.org/w.pt",
        tmp_path / "cache" / "w.pt",
        sha256=hashlib.sha256(b"weights").hexdigest(),
    )
    arguments = {"given": None, "candidates": [file.path], "sha256": file.sha256, "licence": "MIT"}
    with pytest.raises(WeightsMissing) as error:
        find("Model", how=file, **arguments)
    assert "curl -L --create-dirs -o" in str(error.value)
    error.value.download.fetch()
    assert find("Model", how=file, **arguments).path == str(file.path)
    assert server == ["/w.pt"]


def test_a_download_that_is_not_the_published_file_is_not_kept(server, tmp_path) -> None:
    file = WebFile("https://example.org/w.pt", tmp_path / "w.pt", sha256="0" * 64)
    with pytest.raises(UserError, match="not the published 000000000000…; nothing was kept"):
        file.fetch()
    assert list(tmp_path.iterdir()) == []


def test_offline_is_offline(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        WebFile("https://example.org/w.pt", tmp_path / "w.pt").fetch()
    with pytest.raises(UserError, match="owner/name: HF_HUB_OFFLINE is set"):
        HUB.fetch()
    assert server == []


def test_no_connection_is_one_line(tmp_path, monkeypatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(weights, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match=r"w\.pt: no download \(no route\)"):
        WebFile("https://example.org/w.pt", tmp_path / "w.pt").fetch()
    with pytest.raises(UserError, match=r"owner/name/config\.json: no download \(no route\)"):
        HUB.fetch()
    with pytest.raises(UserError, match="only https://"):
        WebFile("http://example.org/w.pt", tmp_path / "w.pt").fetch()


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


def test_every_tensor_must_be_there_and_no_other(tmp_path) -> None:
    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}

    def load(state: dict[str, torch.Tensor]) -> nn.Linear:
        with torch.device("meta"):
            model = nn.Linear(3, 2)
        weights.load_state(model, state, "w.pt", "a line", "get it")
        return model

    assert torch.equal(load(state).weight, state["weight"])
    with pytest.raises(
        UserError, match=r"w\.pt is not a line: bias is missing, not float32 \(2,\)"
    ):
        load({"weight": state["weight"]})
    with pytest.raises(
        UserError, match=r"weight is float32 \(2, 4\), not float32 \(2, 3\); get it"
    ):
        load(state | {"weight": torch.ones(2, 4)})
    with pytest.raises(UserError, match="it has a tensor 'more' too many"):
        load(state | {"more": torch.ones(1)})
    save_file(state, tmp_path / "w.safetensors")
    read = weights.read_state(tmp_path / "w.safetensors", "a line", "get it")
    assert torch.equal(read["weight"], state["weight"])


def test_a_pickle_that_would_run_something_is_not_run(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("it ran",)

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="it cannot be read as tensors"):
        weights.read_state(tmp_path / "evil.pt", "a line", "get it")
