"""Draw the pictures of the web page in docs/: screenshots of what it does with the drawings of examples/.

python scripts/draw_page.py              into docs/
python scripts/draw_page.py FOLDER       elsewhere

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, PngImagePlugin

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

COMMAND = "python scripts/draw_page.py"
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs"
STATIC = ROOT / "app" / "static"
KEY = "fashionnet-digest"
"""Key of the PNG text that contains the digest."""
SECONDS = 60
MARGIN = 8
PHONE = 390
TROUSERS = [
    *((10, y, 18, y) for y in (3, 5, 7)),
    *((x, 7, x, 26) for x in (10, 12)),
    *((x, 7, x, 26) for x in (16, 18)),
]
"""Strokes over the canvas of 28x28 pixels: from x, y to x, y."""


class Visit:
    """The page in a browser, with what a visitor does."""

    def __init__(self, driver: "Chrome", address: str) -> None:
        self.driver = driver
        driver.get(address)
        self.wait("document.querySelector('#accuracy').textContent")

    def wait(self, script: str) -> None:
        """Waits until a JavaScript expression is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, SECONDS, poll_frequency=0.05)
        wait.until(lambda _: self.driver.execute_script(f"return {script}"))

    def click(self, selector: str) -> None:
        """Clicks the first element of that selector, once there is one."""
        self.wait(f"document.querySelector({selector!r}) !== null")
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def classify(self, *names: str) -> None:
        """Classifies the samples of these classes."""
        for count, name in enumerate(names, 1):
            self.click(f'#samples button[title="{name}"]')
            self.wait(f"document.querySelectorAll('#answers .answer').length === {count}")


def explain(visit: Visit) -> None:
    """Classifies two drawings and explains one."""
    visit.classify("Sneaker", "Shirt")
    visit.click("#answers .explain")
    visit.wait("document.querySelector('#answers .heat img')?.naturalWidth > 0")


def compare(visit: Visit) -> None:
    """Classifies one drawing by all models."""
    visit.classify("Coat")
    visit.click("#answers .compare")
    visit.wait("document.querySelector('.comparison img')?.naturalWidth > 0")


def classify_all(visit: Visit) -> None:
    """Classifies all drawings; the results are lines, the least sure first."""
    names = visit.driver.execute_script("return [...document.querySelectorAll('#samples button')].map((b) => b.title)")
    visit.classify(*names)
    visit.driver.execute_script(
        "for (const details of document.querySelectorAll('#answers details')) details.open = false;"
        "const order = document.querySelector('#order');"
        "order.value = 'sureness'; order.dispatchEvent(new Event('change'));"
    )


def draw(visit: Visit) -> None:
    """Draws trousers and classifies them."""
    from selenium.webdriver.common.action_chains import ActionChains

    visit.click("#sketch-start")
    canvas = visit.driver.find_element("id", "sketch")
    pen = ActionChains(visit.driver, duration=0)
    for from_x, from_y, to_x, to_y in TROUSERS:
        pen.move_to_element_with_offset(canvas, *(8 * (each - 14) for each in (from_x, from_y))).click_and_hold()
        pen.move_by_offset(8 * (to_x - from_x), 8 * (to_y - from_y)).release()
    pen.perform()
    visit.click("#sketch-classify")
    visit.wait("document.querySelector('#answers .pixels')?.naturalWidth > 0")


@dataclass(frozen=True)
class Picture:
    """A screenshot: how wide the page is, in which colours, and what a visitor does before."""

    do: Callable[[Visit], None]
    width: int = 1200
    colours: str = "light"


PICTURES = {
    "page.png": Picture(explain),
    "page-phone.png": Picture(lambda visit: visit.classify("Sneaker"), width=PHONE),
    "page-dark.png": Picture(compare, colours="dark"),
    "page-many.png": Picture(classify_all),
    "page-drawing.png": Picture(draw, width=800),
}


def digest() -> str:
    """Returns a SHA-256 of all that the pictures depend on: the files of the page, this script and the models."""
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
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, metavar="FOLDER")
    folder: Path = parser.parse_args().folder
    try:
        with tempfile.TemporaryDirectory() as no_data, serve(Path(no_data)) as address, browser() as driver:
            draw_pictures(driver, address, folder)
    except ImportError as error:
        print(f"error: {error}: install Selenium with: pip install -e '.[test]'", file=sys.stderr)
        return 2
    return 0


def draw_pictures(driver: "Chrome", address: str, folder: Path) -> None:
    """Writes every picture of the page at ``address`` as a PNG file into ``folder``, once the service is ready."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(address + "health/ready")
    WebDriverWait(driver, SECONDS).until(lambda _: driver.refresh() or '"ready"' in driver.page_source)
    text = PngImagePlugin.PngInfo()
    text.add_text(KEY, digest())
    for name, picture in PICTURES.items():
        content = screenshot(driver, address, picture)
        image = Image.open(io.BytesIO(content)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        image.save(folder / name, pnginfo=text, optimize=True)


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
    """Yields headless Chromium."""
    from selenium import webdriver

    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver_path):
        sys.exit("error: There is no Chromium with its driver here; install both with: make browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(driver_path)) as driver:
        yield driver


def screenshot(driver: "Chrome", address: str, picture: Picture) -> bytes:
    """Returns a PNG of the page down to the end of the results, after what the visitor does."""
    colours = {"features": [{"name": "prefers-color-scheme", "value": picture.colours}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
    resize(driver, picture.width, 900)
    picture.do(Visit(driver, address))
    bottom = "return Math.ceil(document.querySelector('#answers').getBoundingClientRect().bottom + window.scrollY)"
    resize(driver, picture.width, driver.execute_script(bottom) + MARGIN)
    return driver.get_screenshot_as_png()


def resize(driver: "Chrome", width: int, height: int) -> None:
    """Makes the page as large as a screen; one as narrow as a phone is to be touched."""
    phone = width <= PHONE
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})


if __name__ == "__main__":
    sys.exit(main())
