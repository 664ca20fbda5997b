"""The page in Chromium, as somebody uses it."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import ROOT

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
TABS = ("predict", "gallery", "evaluation", "models")
_skip_without = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium here: `make browser` installs it")


def needs_browser(test):
    """Marks a test that drives Chromium."""
    return pytest.mark.browser(_skip_without(test))


@contextlib.contextmanager
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    """Chromium without a window, 1200 pixels wide, which keeps what is downloaded in ``downloads``."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        yield driver


@contextlib.contextmanager
def watched(driver: webdriver.Chrome, client: httpx.Client) -> "Iterator[Page]":
    """The page, fresh; at the end nothing may have gone wrong unseen, nor have been asked of anybody else."""
    driver.get_log("browser")
    driver.get_log("performance")
    page = Page(driver, str(client.base_url))
    yield page
    assert page.hosts() == {client.base_url.netloc.decode()}
    assert [line for line in page.console() if "Failed to load resource" not in line] == []


class Page:
    """The page as somebody uses it."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        self.address = address
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        self.prefer("light")
        driver.get(address)
        self.wait(lambda: self.all("#model option"))

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def wait(self, condition, seconds: float = 30):
        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def awaited(self, selector: str):
        """The first element of that selector, once there is one."""
        return self.wait(lambda: (self.all(selector) or [None])[0])

    def open(self, tab: str) -> None:
        self.one(f"#tab-{tab}").click()

    def text_of(self, tab: str, awaited: str) -> str:
        """All that a tab says, once it has been opened and shows what the selector ``awaited`` finds."""
        self.open(tab)
        self.wait(lambda: self.all(f"#{tab} {awaited}"))
        return self.one(f"#{tab}").text

    def upload(self, *paths: Path) -> list[str]:
        """Classify files; what the list of results says then, row by row."""
        before = len(self.all("#answers > li"))
        self.one("#files").send_keys("\n".join(map(str, paths)))
        self.wait(lambda: len(self.all("#answers > li")) == before + len(paths))
        self.wait_until_classified()
        return self.texts("#answers > li")

    def visible(self, selector: str) -> list:
        """The elements of that selector that can be seen."""
        return [element for element in self.all(selector) if element.is_displayed()]

    def texts(self, selector: str) -> list[str]:
        """What all these elements say that can be seen, in one call."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.checkVisibility() && e.innerText)"
        return [text.strip() for text in self.driver.execute_script(script, selector) if text]

    def wait_until_classified(self) -> None:
        self.wait(lambda: self.all("#answers > li") and not self.one("#predict-progress").is_displayed(), seconds=120)

    def focused(self):
        """The element that has the focus."""
        return self.driver.switch_to.active_element

    def emulate(self, width: int, height: int) -> None:
        """Make the page as large as a screen; narrow ones, which a window cannot be, are phones, to be touched."""
        phone = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})

    def prefer(self, colours: str) -> None:
        """Choose light or dark colours in the browser."""
        media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def drop(self, *paths: Path) -> None:
        """Drop files and folders on the page, as from a window of the desktop."""
        self.drag({"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1})

    def drag(self, data: dict[str, object]) -> None:
        """Drag data, as the DevTools protocol names it, from elsewhere on the page and drop it there."""
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": 400, "y": 300, "data": data}
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)

    def hide(self) -> None:
        """Go to another tab of the browser, and come back."""
        here = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self.driver.close()
        self.driver.switch_to.window(here)

    def errors(self) -> list[str]:
        """What the page shows as gone wrong."""
        return [each.text for each in self.all(".problem, [role=alert]") if each.text]

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def hosts(self) -> set[str]:
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme.startswith("http")}
