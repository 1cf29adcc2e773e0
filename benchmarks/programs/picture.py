"""Takes the README's picture of a report, in the system's Chromium:

python -m benchmarks.programs.picture outputs/mini/report.html docs/images/report.webp
"""

import io
import sys
from pathlib import Path

from PIL import Image

from tests.support.browser import Chromium

SIZE = (1400, 1000)  # CSS pixels
# Folds how to read the first suite's table, and returns where it begins.
TOP = """(() => {
    document.querySelector("#suite-1 details").open = false;
    return document.querySelector("#suite-1-title").offsetTop - 16;
})()"""
MOST = 200_000  # bytes


def main(report: Path, picture: Path) -> None:
    """Writes the picture of a report's first suite as WebP.

    Raises:
        ValueError: if it is larger than `MOST` bytes.
    """
    with Chromium() as browser:
        browser.size(*SIZE)
        browser.open(report)
        cut = dict(zip(("x", "y", "width", "height"), (0, browser.run(TOP), *SIZE), strict=True))
        pixels = Image.open(io.BytesIO(browser.page.screenshot(full_page=True, clip=cut)))
    file = io.BytesIO()
    pixels.convert("RGB").save(file, "WEBP", quality=85, method=6)
    if len(file.getvalue()) > MOST:
        raise ValueError(f"{picture}: {len(file.getvalue())} bytes, over {MOST}; lower the quality")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(file.getvalue())
    print(f"{picture}: {len(file.getvalue())} bytes, {pixels.width} x {pixels.height}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
