"""Draw docs/page.png: a screenshot of the web page with two classified drawings.

python scripts/draw_page.py

Needs Chromium and Selenium: make browser, and pip install -e '.[test]'.
"""

import argparse
import hashlib
import io
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, PngImagePlugin

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

COMMAND = "python scripts/draw_page.py"
ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "page.png"
STATIC = ROOT / "app" / "static"
KEY = "fashionnet-digest"
"""Key of the PNG text that contains the digest."""
WIDTH = 1200
DRAWINGS = ("Sneaker", "Shirt")
SECONDS = 60


def digest() -> str:
    """Returns a SHA-256 of all that the picture depends on: the files of the page, this script and the models."""
    from model import WEIGHTS
    from model.artifact import list_artifacts, read_card

    whole = hashlib.sha256()
    for path in [Path(__file__), *sorted(path for path in STATIC.rglob("*") if path.is_file())]:
        content = path.read_bytes().replace(b"\r\n", b"\n")  # Git for Windows may write text files so
        whole.update(f"{path.relative_to(ROOT).as_posix()} {hashlib.sha256(content).hexdigest()}\n".encode())
    for name in list_artifacts(WEIGHTS):
        whole.update(f"{name} {read_card(WEIGHTS, name).version}\n".encode())
    return whole.hexdigest()


def digest_in(picture: Path) -> str | None:
    """Returns the digest in ``picture``, or None."""
    with Image.open(picture) as image:
        return image.info.get(KEY)


def main() -> int:
    """Draw; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURE, help="where to write (default: docs/page.png)")
    out: Path = parser.parse_args().out
    try:
        with tempfile.TemporaryDirectory() as no_data, serve(Path(no_data)) as address, browser() as driver:
            content = screenshot(driver, address)
    except ImportError as error:
        print(f"error: {error}: install Selenium with: pip install -e '.[test]'", file=sys.stderr)
        return 2
    text = PngImagePlugin.PngInfo()
    text.add_text(KEY, digest())
    image = Image.open(io.BytesIO(content)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(out, pnginfo=text, optimize=True)
    return 0


@contextmanager
def serve(data_dir: Path) -> Iterator[str]:
    """Runs the service on a free port; yields its address."""
    import uvicorn

    from app.main import create_app
    from app.settings import Settings

    server = uvicorn.Server(uvicorn.Config(create_app(Settings(data_dir=data_dir)), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + SECONDS
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def browser() -> "Iterator[Chrome]":
    """Yields headless Chromium in light colours."""
    from selenium import webdriver

    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver_path):
        sys.exit("error: There is no Chromium with its driver here; install both with: make browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},900"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(driver_path)) as driver:
        light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
        yield driver


def screenshot(driver: "Chrome", address: str) -> bytes:
    """Classifies the drawings, explains one, and returns a PNG of the page down to the end of the answers."""
    from selenium.webdriver.support.ui import WebDriverWait

    def click(selector: str) -> None:
        driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def wait(script: str) -> None:
        WebDriverWait(driver, SECONDS).until(lambda _: driver.execute_script(f"return {script}"))

    driver.get(address + "health/ready")
    WebDriverWait(driver, SECONDS).until(lambda _: driver.refresh() or '"ready"' in driver.page_source)
    driver.get(address)
    wait("document.querySelector('#model option') !== null")
    for count, name in enumerate(DRAWINGS, 1):
        click(f"#samples button[title={name}]")
        wait(f"document.querySelectorAll('#answers .answer').length === {count}")
    wait("document.querySelector('#answers .explain') !== null")
    click("#answers .explain")
    wait("document.querySelector('#answers .heat img')?.naturalWidth > 0")
    bottom = driver.execute_script(
        "return Math.ceil(document.querySelector('#answers').getBoundingClientRect().bottom)"
    )
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": WIDTH, "height": bottom + 16, "deviceScaleFactor": 1, "mobile": False},
    )
    return driver.get_screenshot_as_png()


if __name__ == "__main__":
    sys.exit(main())
