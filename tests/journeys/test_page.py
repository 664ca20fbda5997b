"""From ``python -m app`` without the data set to the whole page."""

import shutil
import subprocess

import pytest

from model import WEIGHTS
from model.engines import choose_engine, load_for_engine
from tests.browser import Page, browser, needs_browser
from tests.data_sets import make_data_set
from tests.servers import ROOT, service


def walk(page: Page, accuracy: str) -> None:
    """Open every tab: none shows an error, and the figures are there."""
    for tab, awaited in (("gallery", ".big, #gallery-items li"), ("evaluation", ".big"), ("models", "table")):
        page.text_of(tab, awaited)
        assert page.errors() == []
    assert page.one("#evaluation .big").get_property("textContent") == accuracy


def card_accuracy() -> str:
    card = load_for_engine("auto", WEIGHTS, "fashionnet").card
    return f"{100 * card.measured_with(choose_engine('auto', card))['test'].accuracy:.2f}%"


@pytest.mark.slow
@needs_browser
def test_the_page_before_and_after_the_data_set_is_there(tmp_path):
    data_dir = tmp_path / "data"
    with service(data_dir=data_dir) as (_, client), browser(tmp_path) as driver:
        page = Page(driver, str(client.base_url))
        walk(page, card_accuracy())
        assert card_accuracy() in page.text_of("gallery", ".big")
        page.open("predict")
        page.one("#samples button[title=Bag]").click()
        page.wait(lambda: page.all("#answers .answer"))
        assert page.one("#answers .answer").text == "Bag"

        make_data_set(data_dir)
        page = Page(driver, str(client.base_url))
        walk(page, f"{100 * client.get('/evaluate').json()['accuracy']:.2f}%")
        page.open("gallery")
        page.wait(lambda: len(page.all("#gallery-items li")) == 40)
        page.open("evaluation")
        page.wait(lambda: page.all(".confusion button"))
        assert "This service has no test images" not in page.one("#panels").get_property("textContent")
        shutil.copy(ROOT / "examples/shirt.png", tmp_path)
        for tab in ("predict", "gallery", "evaluation", "models"):
            page.open(tab)
            command = page.wait(lambda tab=tab: page.one(f"#{tab}-curl").text)
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, command
            assert "urn:fashionnet:problem" not in done.stdout, command
        assert (tmp_path / "gallery.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_curl_line_of_the_gallery_saves_no_error_as_a_picture(tmp_path):
    with service(data_dir=tmp_path / "data") as (_, client):
        command = f"curl -f '{str(client.base_url).rstrip('/')}/gallery?rows=2' -o gallery.png"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 22
    assert "503" in done.stderr
    assert not (tmp_path / "gallery.png").exists()
