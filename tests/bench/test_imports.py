"""A class that cannot be imported is one line with the module and the reason."""

import sys
from textwrap import dedent

import pytest
from omegaconf import OmegaConf

from bench.__main__ import main
from bench.errors import UserError
from bench.objects import build, locate

# Source of the module lab.voice → what the message about lab.voice.Voice must hold, in order.
BROKEN = {
    "a package that is missing": (
        "import no_such_package.part",
        ["ModuleNotFoundError: No module named 'no_such_package'"],
    ),
    "a name that a package lacks": (
        "from json import no_such_name",
        ["ImportError: cannot import name 'no_such_name' from 'json'"],
    ),
    "a library that does not load": (
        """
        import ctypes, pathlib
        library = pathlib.Path(__file__).with_name("lib.so")
        library.write_bytes(b"not a library at all, but longer than the header of one" * 9)
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            raise OSError(f"Could not load {library.name}") from error
        """,
        ["OSError: Could not load lib.so, caused by OSError: ", "lib.so: invalid ELF header"],
    ),
    "an error while another is handled": (
        """
        try:
            {}["optional"]
        except KeyError:
            raise RuntimeError("no voice is installed")
        """,
        ["failed: RuntimeError: no voice is installed; "],
    ),
    "an error of several lines": (
        "raise ImportError('first\\n  second')",
        ["ImportError: first second; "],
    ),
    "an error without a message": ("raise LookupError", ["failed: LookupError; "]),
    "a mistake in its syntax": ("x = = 1", ["SyntaxError: invalid syntax (voice.py, line 1)"]),
    "an end of the process": ("raise SystemExit", ["failed: SystemExit; "]),
    "an end with a code": ("raise SystemExit(3)", ["failed: SystemExit: 3; "]),
    "a panic of a compiled package": (
        "class Panic(BaseException): pass\nraise Panic('unwrap on None')",
        ["failed: Panic: unwrap on None; "],
    ),
}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Writes the package `lab` with one module, `lab.voice`, importable until the test ends."""

    def write(voice: str, init: str = "") -> None:
        package = tmp_path / "lab"
        package.mkdir()
        (package / "__init__.py").write_text(init)
        (package / "voice.py").write_text(dedent(voice).strip())

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in [n for n in sys.modules if n.partition(".")[0] == "lab"]:
        del sys.modules[name]


def message(_target_: str, **arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        build(OmegaConf.create({"_target_": _target_, **arguments}), "system x")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("imported_by", ["its path", "its package", "a nested path"])
def test_a_failed_import_gives_the_module_and_the_reason(kind, imported_by, lab):
    source, parts = BROKEN[kind]
    by_package = imported_by == "its package"
    lab(source, init="from lab import voice" if by_package else "")
    node = {"_target_": "lab.voice.Voice"}
    if imported_by == "a nested path":
        node = {"_target_": "builtins.dict", "encoders": [{"deep": node}]}
    text = message(**node)
    module = "lab" if by_package else "lab.voice"
    assert text.startswith(f"system x (lab.voice.Voice): importing {module} failed: ")
    assert text.endswith(f"; for the traceback: python -c 'import {module}'")
    at = 0
    for part in parts:
        assert part in text[at:]
        at = text.index(part, at) + len(part)
    assert "has no attribute" not in text


def test_a_failed_import_ends_a_run_with_2_whatever_the_module_does(lab, capsys, tmp_path):
    lab("import sys; sys.exit(0)")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("run", f"outputs={tmp_path}", "system=lab.voice.Voice"),
                *("suite=mini_cross_gender", "progress=none"),
            ]
        )
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "vcbench: system voice (lab.voice.Voice): importing lab.voice failed: SystemExit: 0; "
        "for the traceback: python -c 'import lab.voice'\n"
    )


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("no_lab.voice.Voice", "no module 'no_lab'; install the package that has it, or call"),
        ("lab.vioce.Voice", "lab has no 'vioce'; "),
        ("lab.voice.Vioce", "lab.voice has no 'Vioce'; did you mean 'Voice'? known: Voice"),
        ("lab.voice.Voice.laod", "lab.voice.Voice has no 'laod'; did you mean 'load'? known: load"),
        ("lab.voice.Voice.load.x", "lab.voice.Voice.load has no 'x'; known: none"),
        ("lab.voice", "Expected a callable target"),
        ("lab..Voice", "lab has no ''; "),
        ("", "importing  failed: ValueError: Empty module name"),
    ],
)
def test_a_name_that_is_not_there_names_the_nearest(target, expected, lab):
    lab("import json\nclass Voice:\n    def load(self): ...")
    assert expected in message(target)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("sys.exit('no GPU')", "SystemExit: no GPU"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise ValueError('gain: 0') from OSError('no file')", "gain: 0, caused by OSError: no f"),
    ],
)
def test_a_constructor_that_fails_gives_its_reason(body, expected, lab):
    lab(f"import sys\nclass Voice:\n    def __init__(self): {body}")
    assert message("lab.voice.Voice").startswith("system x (lab.voice.Voice): ")
    assert expected in message("lab.voice.Voice")


def test_what_the_user_asks_for_passes_through(lab):
    lab("from bench.errors import UserError\nraise UserError('lab: give it a licence')")
    assert message("lab.voice.Voice") == "lab: give it a licence"


def test_control_c_stops_an_import(lab):
    lab("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        build(OmegaConf.create({"_target_": "lab.voice.Voice"}), "system x")


def test_a_package_that_imports_on_first_use_gives_its_reason(lab):
    lazy = "def __getattr__(name):\n    raise RuntimeError(f'cannot import {name}')"
    lab("", init=lazy)
    assert "importing lab.Voice failed: RuntimeError: cannot import Voice" in message("lab.Voice")


def test_a_located_name_is_the_object_itself(lab):
    lab("class Voice:\n    @classmethod\n    def load(cls): return cls()")
    assert locate("lab.voice.Voice", "x").__name__ == "Voice"
    assert type(locate("lab.voice.Voice.load", "x")()).__name__ == "Voice"
