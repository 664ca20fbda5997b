"""The page in a real browser, against the real service."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.pictures import encode, grey_png, scene, trousers
from tests.servers import ROOT

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
TABS = ("predict", "gallery", "evaluation", "models")
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium here: `make browser` installs it")


def test_the_page_forbids_what_is_not_its_own(client):
    response = client.get("/")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = client.get("/page/page.js")
    assert script.headers["content-security-policy"] == policy
    assert "javascript" in script.headers["content-type"]


@pytest.mark.parametrize("path", sorted((ROOT / "app" / "static").glob("*.*")), ids=lambda path: path.name)
def test_the_files_of_the_page_name_no_other_address(client, path):
    served = client.get(f"/page/{path.name}")
    assert served.content == path.read_bytes()
    assert "//" not in path.read_text().replace("http://www.w3.org/", ""), "a comment or an address"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        yield driver


class Page:
    """The page as somebody uses it."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        self.address = address
        driver.get(address)
        self.wait(lambda: self.all("#model option"))

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def wait(self, condition, seconds: float = 30):
        return WebDriverWait(self.driver, seconds).until(lambda _: condition())

    def open(self, tab: str) -> None:
        self.one(f"#tab-{tab}").click()

    def upload(self, *paths: Path) -> list[str]:
        before = len(self.all("#answers tbody tr"))
        self.one("#files").send_keys("\n".join(map(str, paths)))
        self.wait(lambda: len(self.all("#answers tbody tr")) == before + len(paths))
        self.wait(lambda: not self.one("#predict-progress").is_displayed())
        return [row.text for row in self.all("#answers tbody tr")]

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def hosts(self) -> set[str]:
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme.startswith("http")}


@pytest.fixture
def page(driver: webdriver.Chrome, client: httpx.Client) -> Iterator[Page]:
    """The page, fresh; at its end nothing may have gone wrong unseen, nor have been asked of anybody else."""
    driver.get_log("browser")
    driver.get_log("performance")
    page = Page(driver, str(client.base_url))
    yield page
    assert page.hosts() == {client.base_url.netloc.decode()}
    assert [line for line in page.console() if "Failed to load resource" not in line] == []


@pytest.fixture
def pictures(tmp_path) -> dict[str, Path]:
    contents = {"trousers.png": encode(trousers()), "noise.png": grey_png(), "bad.png": b"nonsense"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {Path(name).stem: tmp_path / name for name in contents}


@needs_browser
def test_an_uploaded_picture_is_answered_with_all_that_is_known(page, pictures):
    (row,) = page.upload(pictures["trousers"])
    assert "Trouser" in row
    assert "trousers.png" in row
    assert len(page.all("#answers .bars dt")) == 10
    natural = page.driver.execute_script("return document.querySelector('#answers .pixels').naturalWidth")
    assert natural == 28, "what the network saw"
    page.one("#answers summary").click()
    assert "plain background removed" in page.one("#answers details").text
    assert "curl -F file=@shirt.png" in page.one("#predict-curl").text


def networks_of(page, name: str) -> list[str]:
    """The networks that answered the pictures of this name."""
    lines = [row.text.splitlines() for row in page.all("#answers tbody tr")]
    return [line for row in lines if row[0] == name for line in row if line.startswith("fashionnet")]


@needs_browser
def test_the_service_chooses_the_network_by_the_picture_until_one_is_chosen(page, pictures, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encode(scene("wood")[0], "JPEG"))
    page.upload(pictures["trousers"], tmp_path / "photo.jpg")
    assert networks_of(page, "trousers.png") == ["fashionnet"]
    assert networks_of(page, "photo.jpg") == ["fashionnet-photo"]
    assert "model=" not in page.one("#predict-curl").text
    Select(page.one("#model")).select_by_value("fashionnet")
    assert "model=fashionnet" in page.one("#predict-curl").text
    page.upload(tmp_path / "photo.jpg")
    assert sorted(networks_of(page, "photo.jpg")) == ["fashionnet", "fashionnet-photo"]


@needs_browser
def test_several_files_fill_a_table_and_a_bad_one_is_a_sentence(page, pictures, downloads):
    rows = "\n".join(page.upload(*pictures.values()))
    assert "This is not a picture" in rows
    assert "does not look like" in rows, "noise is warned of"
    assert page.one("#predict-status").text == "3 of 3 answered, 1 could not be."
    page.one("#csv").click()
    page.wait((downloads / "fashionnet.csv").exists)
    with (downloads / "fashionnet.csv").open(newline="") as file:
        table = {row["file"]: row for row in csv.DictReader(file)}
    assert table["trousers.png"]["label"] == "Trouser"
    assert float(table["trousers.png"]["Trouser"]) == float(table["trousers.png"]["confidence"])
    assert table["bad.png"]["error"].startswith("This is not a picture")
    page.one("#clear").click()
    assert not page.one("#answers").is_displayed()


@needs_browser
def test_a_sample_is_classified_and_explained(page):
    page.one("#samples button[title=trouser]").click()
    page.wait(lambda: page.all("#answers .answer"))
    assert page.one("#answers .answer").text == "Trouser"
    page.one("#answers td button").click()
    heat = page.wait(lambda: page.one("#answers figure img") if page.all("#answers figure img") else None)
    page.wait(lambda: heat.get_property("naturalWidth") > 200)
    assert "speaks for Trouser" in page.one("#answers figcaption").text


@needs_browser
def test_the_gallery_filters_and_shows_the_ten_bars_of_an_image(page):
    page.open("gallery")
    page.wait(lambda: len(page.all("#gallery-items li")) == 40)
    Select(page.one("select[name=label]")).select_by_value("Bag")
    labels = "return [...document.querySelectorAll('#gallery-items span:last-child')].map((each) => each.textContent)"
    page.wait(lambda: set(page.driver.execute_script(labels)) == {"true Bag"})
    page.all("#gallery-items button")[0].click()
    page.wait(lambda: len(page.all("#gallery-detail .bars dt")) == 10)
    assert "truly Bag" in page.one("#gallery-detail h3").text
    assert "label=Bag" in page.one("#gallery-curl").text


@needs_browser
def test_the_evaluation_shows_figures_and_the_images_behind_a_cell(page):
    page.open("evaluation")
    page.wait(lambda: page.all("#evaluation .big"))
    assert page.one("#evaluation .big").text.endswith("%")
    assert "95 % confidence interval" in page.one("#evaluation-content").text
    assert page.one("#evaluation .chart").get_attribute("aria-label").startswith("Reliability diagram")
    cell = page.all(".confusion button")[0]
    count = int(cell.text)
    page.driver.execute_script("arguments[0].click()", cell)
    page.wait(lambda: page.one("#gallery").is_displayed())
    page.wait(lambda: len(page.all("#gallery-items li")) == min(40, count))


@needs_browser
def test_the_model_tab_shows_the_card_and_that_of_another_network(page):
    page.open("models")
    page.wait(lambda: "1,199,882" in page.one("#models-content").text)
    assert page.one("#models .chart").get_attribute("aria-label").startswith("Accuracy over")
    Select(page.one("#model")).select_by_value("fashionnet-deep")
    page.wait(lambda: "2,725,290" in page.one("#models-content").text)
    assert "models/fashionnet-deep" in page.one("#models-curl").text


@needs_browser
def test_tabs_are_moved_through_by_keys(page):
    page.one("#tab-predict").send_keys(Keys.ARROW_RIGHT)
    page.wait(lambda: page.one("#gallery").is_displayed())
    page.driver.switch_to.active_element.send_keys(Keys.END)
    page.wait(lambda: page.one("#models").is_displayed())
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.wait(lambda: page.one("#predict").is_displayed())


@needs_browser
def test_a_service_that_is_gone_is_a_sentence(page, pictures):
    page.driver.execute_script("window.fetch = () => Promise.reject(new TypeError('gone'))")
    (row,) = page.upload(pictures["trousers"])
    assert "The service cannot be reached" in row
    page.open("models")
    page.wait(lambda: "cannot be reached" in page.one("#models-problem").text)


@needs_browser
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not here: `make browser` installs it")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1200])
def test_axe_finds_no_barrier(page, pictures, scheme, width):
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page.driver.set_window_size(width, 900)
    page.upload(pictures["trousers"], pictures["bad"])
    for tab in TABS:
        page.open(tab)
        page.wait(lambda: page.one(f"#{tab}").is_displayed())  # noqa: B023 - called before the next round
        page.wait(lambda: not page.all("#evaluation-progress:not([hidden])"))
        page.driver.execute_script(AXE.read_text())
        found = page.driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    page.driver.set_window_size(1200, 900)


@needs_browser
def test_nothing_is_wider_than_a_phone(page, pictures):
    page.driver.set_window_size(500, 900)
    page.upload(pictures["trousers"])
    for tab in TABS:
        page.open(tab)
        page.wait(lambda: not page.all("#evaluation-progress:not([hidden])"))
        assert page.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), tab
    page.driver.set_window_size(1200, 900)


def test_the_samples_are_the_examples():
    with Image.open(ROOT / "app" / "static" / "examples" / "shirt.png") as sample:
        assert sample.size == (400, 400)
    assert (ROOT / "examples").resolve() == ROOT / "app" / "static" / "examples"
