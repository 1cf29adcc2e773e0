"""Writes a listening test for webMUSHRA (07130f2, 2025-05), served by pymushra: one YAML a group.

    webmushra/configs/<test_id>_<group>.yaml
    webmushra/configs/resources/<test_id>/<stimulus>.wav

The folder is copied into webMUSHRA's; a listener of group 0 opens `?config=<test_id>_0.yaml`.

- webMUSHRA's `paired_comparison` always names one clip as the reference, so a pair is one file
  here: the first clip, a pause, the second clip. The page is a `likert_single_stimulus` whose
  stimulus has the id of the screen. For abx the reference comes before each of the two clips.
- `likert_single_stimulus` has no reference: for smos it is a player in the page's text.
- `mushra` adds the hidden reference itself and calls it "reference" in its results.
- webMUSHRA sends its results without escaping: an id of a listener must have no & + % #.
- pymushra answers with a text, which webMUSHRA takes for an error: `showErrors` stays unset.
"""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from bench.audio import Waveform
from bench.files import write_text
from reports.listening.format import MUSHRA, PAIRS
from reports.listening.page import linked
from reports.listening.wording import Wording

FOLDER = "webmushra"
PAUSE_SECONDS = 0.5  # between the clips of a pair, beside their own silence
LONGEST_SECONDS = 12.0  # of a MUSHRA clip, unless `strict: false`
BUFFER_SIZE = 2048  # samples; webMUSHRA's default


def write_webmushra(
    folder: Path, test: Mapping[str, Any], wording: Wording, hidden: frozenset[str]
) -> list[str]:
    """Writes one configuration per listener group, and the sounds.

    Args:
        folder: of the test, with `audio/`.
        test: the contents of test.json.
        wording: the words.
        hidden: stimuli that are a hidden reference, which webMUSHRA adds itself.

    Returns:
        Notes for the user.
    """
    configs = folder / FOLDER / "configs"
    resources = configs / "resources" / test["test_id"]
    pages, notes, longest = {}, [], 0.0
    used = {screen for group in test["groups"] for screen in group}
    for screen in test["screens"]:
        if screen["screen"] not in used:  # of the training, which the page alone has
            continue
        pages[screen["screen"]] = _page(test, screen, wording, hidden)
        if test["kind"] in PAIRS:
            _join(folder / "audio", screen, resources / f"{screen['screen']}.wav")
        for name in screen["stimuli"] if test["kind"] not in PAIRS else ():
            if name not in hidden:
                linked(folder / "audio" / f"{name}.wav", resources / f"{name}.wav")
            longest = max(longest, soundfile.info(folder / "audio" / f"{name}.wav").duration)
        if screen["reference"] and test["kind"] not in PAIRS:
            name = f"{screen['reference']}.wav"
            linked(folder / "audio" / name, resources / name)
    if test["kind"] == MUSHRA and longest > LONGEST_SECONDS:
        notes.append(
            f"The longest clip lasts {longest:.1f} s; MUSHRA asks for {LONGEST_SECONDS:.0f} s at "
            "most. webMUSHRA's check of it is switched off (strict: false)."
        )
        for page in pages.values():
            page["strict"] = False
    for number, group in enumerate(test["groups"]):
        config = {
            "testname": _escaped(wording.page["title"]),
            "testId": test["test_id"],
            "bufferSize": BUFFER_SIZE,
            "stopOnErrors": True,
            "showButtonPreviousPage": False,
            "remoteService": "service/write.php",
            "pages": [
                {
                    "type": "generic",
                    "id": "welcome",
                    "name": _escaped(wording.page["title"]),
                    "content": "<br/><br/>".join(
                        _escaped(text)
                        for text in (
                            wording.page["welcome"],
                            wording.instructions,
                            wording.page["checks"],
                        )
                    ),
                },
                *(pages[screen] for screen in group),
                {
                    "type": "finish",
                    "name": _escaped(wording.page["title"]),
                    "content": _escaped(wording.page["done"]),
                    "popupContent": _escaped(wording.page["done"]),
                    "showResults": False,
                    "writeResults": True,
                    "questionnaire": [
                        {
                            "type": "text",
                            "label": _escaped(
                                f"{wording.page['participant']} "
                                f"({wording.page['participant_hint']})"
                            ),
                            "name": "listener",
                        }
                    ],
                },
            ],
        }
        text = yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)
        write_text(configs / f"{test['test_id']}_{number}.yaml", text)
    return notes


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes no aliases: the parser in webMUSHRA's page does not know them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _page(
    test: Mapping[str, Any],
    screen: Mapping[str, Any],
    wording: Wording,
    hidden: frozenset[str],
) -> dict[str, Any]:
    resources = f"configs/resources/{test['test_id']}"
    content = _escaped(wording.question)
    if test["notice"]:
        content += f"<br/><br/>{_escaped(test['notice'])}"
    page = {"id": screen["screen"], "name": _escaped(wording.page["title"])}
    if test["kind"] == MUSHRA:
        return {
            "type": "mushra",
            **page,
            "content": content,
            "showWaveform": False,
            "enableLooping": True,
            "reference": f"{resources}/{screen['reference']}.wav",
            "createAnchor35": False,
            "createAnchor70": False,
            "stimuli": {
                name: f"{resources}/{name}.wav" for name in screen["stimuli"] if name not in hidden
            },
        }
    stimulus = screen["screen"] if test["kind"] in PAIRS else screen["stimuli"][0]
    if screen["reference"] and test["kind"] not in PAIRS:
        content += (
            f"<br/><br/>{_escaped(wording.page['reference'])}: "
            f'<audio controls="controls" src="{resources}/{screen["reference"]}.wav"></audio>'
        )
    labels = sorted(test["scale"]["labels"].items(), key=lambda of: float(of[0]))
    return {
        "type": "likert_single_stimulus",
        **page,
        "content": content,
        "mustRate": True,
        "mustPlayback": "ended",
        "stimuli": {stimulus: f"{resources}/{stimulus}.wav"},
        "response": [{"value": value, "label": _escaped(label)} for value, label in labels],
    }


def _join(audio: Path, screen: Mapping[str, Any], path: Path) -> None:
    """Writes the clips of a pair one after the other, each after the reference if there is one."""
    parts: list[np.ndarray] = []
    rate = 0
    for name in screen["stimuli"]:
        for part in (screen["reference"], name):
            if part:
                samples, rate = soundfile.read(audio / f"{part}.wav", dtype="float32")
                parts += [samples, np.zeros(round(PAUSE_SECONDS * rate), np.float32)]
    Waveform.from_numpy(np.concatenate(parts[:-1]), rate).save(path)


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
