"""Every configuration type on the real webMUSHRA, served by the real pymushra, in a browser.

Set WEBMUSHRA to the folder of a clone and PYMUSHRA to the program, then run this file by pytest.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

WEBMUSHRA, PYMUSHRA = os.environ.get("WEBMUSHRA", ""), os.environ.get("PYMUSHRA", "")
pytestmark = pytest.mark.skipif(
    not (WEBMUSHRA and PYMUSHRA and shutil.which("chromium")),
    reason="set WEBMUSHRA to a clone of webMUSHRA and PYMUSHRA to the program; needs chromium",
)


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """Address of webMUSHRA with all our configurations."""
    root = tmp_path_factory.mktemp("webmushra") / "site"
    shutil.copytree(WEBMUSHRA, root, ignore=shutil.ignore_patterns(".git"))
    for kind in KINDS:
        shutil.copytree(exported(kind) / "webmushra", root, dirs_exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (root.parent / "log").open("w")
    command = [PYMUSHRA, "-w", str(root), "-d", str(root.parent / "db.json"), "server", "-p"]
    process = subprocess.Popen([*command, str(port)], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(address, timeout=1)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(10)


KINDS = ("nmos", "smos", "cmos", "abx", "mushra")
STEP = """() => {
  const next = document.querySelector("#__button_next") ||
    [...document.querySelectorAll("#page_navigation button")].at(-1);
  return next ? [next.disabled, next.textContent] : null;
}"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_is_taken_to_its_results(kind, server, exported):
    from playwright.sync_api import sync_playwright

    test = json.loads((exported(kind) / "test.json").read_text())
    key = json.loads((exported(kind) / "key.json").read_text())
    group = test["groups"][1]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        page = browser.new_page()
        page.set_default_timeout(60000)
        page.goto(f"{server}/?config={test['test_id']}_1.yaml")
        page.wait_for_function("window.pageManager && pageManager.getCurrentPage()")
        page.wait_for_selector("#page_content")
        page.wait_for_timeout(1000)
        assert page.evaluate("errorHandler.getErrors()") == []
        page.evaluate("pageManager.nextPage()")
        for screen in group:
            assert page.evaluate("pageManager.getCurrentPage().pageConfig.id") == screen
            if kind == "mushra":
                page.evaluate(
                    "document.querySelectorAll('.scales').forEach((s, i) => { s.value = 10 * i; })"
                )
            else:
                locked = page.evaluate("document.querySelector('input[type=radio]').disabled")
                assert locked
                page.evaluate("""pageManager.getCurrentPage().filePlayer.genericAudioControl
                    .sendEvent({ name: "ended", index: 0 })""")
                page.evaluate("""(() => { const b = [...document.querySelectorAll(
                    'input[type=radio]')].at(-1); b.disabled = false; b.click(); })()""")
            page.evaluate("pageManager.nextPage()")
        page.fill("#listener", "anna7")
        page.wait_for_timeout(300)
        page.evaluate("document.querySelector('#send_results').disabled = false")
        page.evaluate("document.querySelector('#send_results').click()")
        page.wait_for_timeout(500)
        browser.close()
    with urllib.request.urlopen(f"{server}/admin/download/{test['test_id']}.json") as answer:
        table = json.loads(answer.read())
    rows = table if isinstance(table, list) else [*table.values()]
    assert list(dict.fromkeys(row["wm_id"] for row in rows)) == group
    assert {row["questionaire_listener"] for row in rows} == {"anna7"}
    assert {row["wm_testId"] for row in rows} == {test["test_id"]}
    assert {Path(row["wm_config"]).name for row in rows} == {f"{test['test_id']}_1.yaml"}
    screens = {s["screen"]: s for s in test["screens"]}
    for screen in group:
        of_one = [row for row in rows if row["wm_id"] == screen]
        names = {row["responses_stimulus"] for row in of_one}
        if kind == "mushra":
            hidden = {
                s for s in screens[screen]["stimuli"] if key["stimuli"][s]["what"] == "source"
            }
            assert names == {*screens[screen]["stimuli"]} - hidden | {"reference"}
        else:
            assert names == {
                screen if len(screens[screen]["stimuli"]) == 2 else screens[screen]["stimuli"][0]
            }
            highest = test["scale"]["highest"]
            assert [row["responses_stimulusRating"] for row in of_one] == [[highest]]
