"""The system's Chromium, headless and without network, driven by Playwright."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


class Chromium:
    """One page of a browser without network.

    Attributes:
        page: Playwright's page.
        messages: messages on the console and exceptions that the page caused.
        requests: addresses that the page requested.
    """

    def __init__(self) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*FLAGS]
        )
        self.fresh()

    def fresh(self) -> None:
        """Opens a new page, without what earlier pages stored; the earlier page is closed."""
        for context in self._browser.contexts:
            context.close()
        self.page = self._browser.new_page(color_scheme="light")
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.page.goto(path.resolve().as_uri())

    def violations(self) -> list[str]:
        """The rules of axe-core that the page breaks, each with the first element that does."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}" for v in found]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; promises are awaited."""
        return self.page.evaluate(script)

    def size(self, width: int, height: int = 900, scheme: str = "light") -> None:
        """Sets the window's size in CSS pixels and the colour scheme that the reader prefers."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
