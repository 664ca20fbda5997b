"""The page for everybody: what axe-core finds, names, focus and width, on phones and computers, in light and dark."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.support.ui import Select

from app.inference.drift import MIN_PREDICTIONS
from tests.browser import AXE, TABS, Page, needs_browser
from tests.pictures import random_image
from tests.servers import classify_images, wait_until

WIDTHS = (320, 390, 1280)
RULES: dict[str, dict[str, object]] = {
    "light": {"rules": {"target-size": {"enabled": True}}},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}},
}
"""The options of axe-core: all rules, and in dark those on colours, since nothing else differs."""
Pictures = dict[str, Path]


def the_start(page: Page, _: Pictures) -> None:
    page.awaited("#samples button")


def the_key_dialog(page: Page, _: Pictures) -> None:
    page.driver.execute_script('import("./page/key.js").then((key) => { key.askForKey(); })')
    page.awaited("#key input")


def one_picture(page: Page, pictures: Pictures) -> None:
    page.upload(pictures["trousers"])
    for button, awaited in (("explain", "map"), ("compare", "comparison")):
        page.awaited(f"#answers .{button}").click()
        page.awaited(f"#answers .{awaited}")


def a_picture_out_of_distribution(page: Page, pictures: Pictures) -> None:
    page.upload(pictures["noise"])
    page.awaited("#answers .anyway summary").click()


def many_pictures(page: Page, pictures: Pictures) -> None:
    """Two of them are the same file, and both are open."""
    page.upload(pictures["trousers"], *pictures.values())
    for summary in page.all("#answers > .sure > details > summary"):
        summary.click()
    page.wait(lambda: len(page.all("#answers .compare")) == 2)


def webcam_and_drawing(page: Page, _: Pictures) -> None:
    page.one("#sketch-start").click()
    page.one("#webcam-start").click()
    page.wait(lambda: page.one("#webcam-result").text)


def a_large_image(page: Page, _: Pictures) -> None:
    page.open("gallery")
    page.awaited("#gallery-items button").click()
    page.awaited("#gallery-detail .map")


def the_gallery(page: Page, _: Pictures) -> None:
    page.open("gallery")
    page.awaited("#gallery-items button")


def two_models(page: Page, _: Pictures) -> None:
    page.text_of("evaluation", ".big")
    Select(page.one("#other")).select_by_value("fashionnet-deep")
    page.wait(lambda: page.all("#evaluation .side > div")[1:])


def a_model_without_drift(page: Page, _: Pictures) -> None:
    page.text_of("models", "#drift")


STATES = [the_start, the_key_dialog, one_picture, a_picture_out_of_distribution, many_pictures, webcam_and_drawing,
          the_gallery, a_large_image, two_models, a_model_without_drift]  # fmt: skip


@needs_browser
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not here: `make browser` installs it")
@pytest.mark.parametrize("reach", STATES, ids=lambda reach: reach.__name__)
def test_everybody_can_use_the_page_on_every_screen(page, pictures, reach: Callable[[Page, Pictures], None]):
    reach(page, pictures)
    assert_usable(page)


@needs_browser
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not here: `make browser` installs it")
def test_everybody_can_use_the_page_without_the_data_and_see_the_drift(page_without_data, client_without_data):
    page = page_without_data
    for tab in ("gallery", "evaluation"):
        page.text_of(tab, ".big")
        assert_usable(page)
    classify_images(client_without_data, [Image.fromarray(random_image())] * MIN_PREDICTIONS)
    wait_until(lambda: client_without_data.get("/models/fashionnet/drift").json()["status"] == "drifted")
    page.text_of("models", ".histogram")
    assert_usable(page)


def assert_usable(page: Page) -> None:
    """axe-core finds nothing, everything is within the screen, and no two buttons have the same name."""
    page.driver.execute_script(AXE.read_text())
    for width in WIDTHS:
        page.emulate(width, 900)
        assert page.driver.execute_script(SPILLING) == [], width
        names = button_names(page)
        assert [name for name in names if names.count(name) > 1 or not name or name[0].islower()] == []
        for colours, rules in RULES.items():
            page.prefer(colours)
            assert barriers(page, rules) == [], (width, colours)


SPILLING = """
    const boxes = document.querySelectorAll("html, dialog[open], button, [role=tablist], .results > li, .drop");
    const wider = [...boxes].filter((box) => box.scrollWidth > Math.max(box.clientWidth, box.offsetWidth));
    return wider.map((box) => box.outerHTML.slice(0, 200));
"""
"""What is wider than the screen, or than what holds it."""


def barriers(page: Page, rules: dict[str, object]) -> list[tuple[str, str]]:
    """What axe-core finds by these rules, with the first element of each kind."""
    found = page.driver.execute_async_script("axe.run(arguments[0]).then(arguments[1])", rules)
    return [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]]


def button_names(page: Page) -> list[str]:
    """What screen readers call the buttons."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [node["name"]["value"] for node in nodes if not node["ignored"] and node["role"]["value"] == "button"]


CLICKS = {
    "predict": [
        ("#samples button", "#answers .bars"),
        ("#answers .evidence summary", ""),
        ("#answers .explain", "#answers .map"),
        ("#answers .compare", "#answers .comparison"),
        ("#answers .remove", ""),
        ("#sketch-start", "#sketch"),
        ("#sketch-erase", ""),
        ("#sketch-classify", "#answers .answer"),
        ("#webcam-start", "#webcam-result:not(:empty)"),
        ("#webcam-take", "#answers > li + li .answer"),
        ("#groups button:last-child", ""),
        ("#clear", "#undo"),
        ("#undo", ""),
        ("#predict .copy", ""),
        ("#clear", "#undo"),
    ],
    "gallery": [
        ("#gallery-items li:last-child button", "#gallery-detail .map"),
        ("#image-next", "#gallery-detail .map"),
        ("#image-previous", "#gallery-detail .map"),
        ("#image-close", ""),
        ("#gallery-next", ""),
        ("#gallery-previous", ""),
        ("#gallery-more", ""),
    ],
    "evaluation": [(".confusion button", "#gallery-items button")],
    "models": [("#models .copy", "")],
}
"""By tab: what is clicked, and what is there when all is done."""


@needs_browser
@pytest.mark.parametrize("tab", TABS)
def test_the_focus_never_falls_to_the_body(page, tab):
    page.open(tab)
    for clicked, awaited in CLICKS[tab]:
        page.wait(lambda: page.visible(clicked))[0].click()  # noqa: B023 - called before the next round
        assert page.focused().tag_name != "body", clicked
        if awaited:
            page.awaited(awaited)
        assert page.focused().tag_name != "body", f"{clicked}, when all is done"


@needs_browser
def test_the_focus_stays_on_a_group_while_pictures_arrive(page, pictures):
    page.upload(pictures["trousers"], pictures["noise"])
    page.driver.execute_script("window.fetch = () => new Promise(() => {})")
    page.all("#groups button")[1].click()
    page.one("#files").send_keys(f"{pictures['bad']}\n{pictures['trousers']}")
    page.wait(lambda: len(page.all("#answers > li")) == 4)
    assert page.focused().get_attribute("aria-pressed") == "true"
