"""The page in a real browser, against the real service."""

import csv
import re
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from app.settings import Settings
from model.artifact import save_artifact
from model.data import CLASSES
from model.evaluation import Metrics
from model.installation import download_command
from model.offline.tables import COLUMNS
from scripts.draw_page import COMMAND, FOLDER, PICTURES, digest, digest_in, draw_pictures
from tests.browser import needs_browser, watched
from tests.pictures import encode, grey_png, scene
from tests.servers import ROOT, serve


def test_the_page_forbids_what_is_not_its_own(client):
    response = client.get("/")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "camera=(self)" in response.headers["permissions-policy"]
    script = client.get("/page/page.js")
    assert script.headers["content-security-policy"] == policy
    assert "javascript" in script.headers["content-type"]


@pytest.mark.parametrize("path", sorted((ROOT / "app" / "static").glob("*.*")), ids=lambda path: path.name)
def test_the_files_of_the_page_name_no_other_address(client, path):
    served = client.get(f"/page/{path.name}")
    assert served.content == path.read_bytes()
    assert "//" not in path.read_text().replace("http://www.w3.org/", ""), "a comment or an address"
    assert path.suffix != ".js" or max(map(len, path.read_text().splitlines())) <= 120


@pytest.fixture
def client_of_old_cards(artifact, tmp_path) -> Iterator[httpx.Client]:
    """A service of an artefact whose card has only the short figures, and no data."""
    short = {split: Metrics(**figures.model_dump()) for split, figures in artifact.card.metrics.items()}
    card = artifact.card.model_copy(update={"metrics": short, "int8_metrics": short})
    save_artifact(tmp_path, card, artifact.content)
    with serve(Settings(model_dir=tmp_path, data_dir=tmp_path)) as client:
        yield client


@pytest.fixture
def client_of_photo_figures(artifact, tmp_path) -> Iterator[httpx.Client]:
    """A service of a card that has figures on photos and a notice, and no data."""
    metrics = artifact.card.metrics | {"photos": artifact.card.metrics["validation"]}
    card = artifact.card.model_copy(update={"metrics": metrics, "notice": "Somebody's photos."})
    save_artifact(tmp_path, card, artifact.content)
    with serve(Settings(model_dir=tmp_path, data_dir=tmp_path)) as client:
        yield client


@needs_browser
def test_an_uploaded_picture_is_answered_with_all_that_is_known(page, pictures):
    (row,) = page.upload(pictures["trousers"])
    assert row.startswith("Trouser Sure, 9")
    assert "trousers.png" in row
    page.wait(lambda: "The model's input, 28x28 pixels" in page.one("#answers").text)
    assert "Model: fashionnet. Reason: picture with a plain background." in page.one("#answers").text
    assert page.one("#answers .pixels").size == {"width": 84, "height": 84}, "28 pixels are enlarged"
    assert page.all("#answers .box rect")[0].rect["height"] > 100, "the bounding box"
    assert len(page.visible("#answers .bars dt")) == 3
    page.one("#answers .evidence summary").click()
    assert len(page.visible("#answers .bars dt")) == 10
    page.one("#answers .steps summary").click()
    assert "plain background removed" in page.one("#answers .steps").text


@needs_browser
def test_the_result_is_announced_and_has_the_focus(page, pictures):
    page.upload(pictures["trousers"])
    assert (
        page.one("#predict-status[role=status]")
        .get_property("textContent")
        .startswith("trousers.png: Trouser. Sure, 9")
    )
    assert page.focused().text.startswith("Trouser")


@needs_browser
def test_a_picture_out_of_distribution_looks_like_one(page, pictures):
    (row,) = page.upload(pictures["noise"])
    assert row.startswith("Not one of the ten\nnoise.png")
    page.wait(lambda: page.all("#answers .warnings"))
    assert "does not resemble the training data" in page.one("#answers .warnings").text
    assert "is the closest" in page.one("#answers .warnings").text
    assert "%" not in page.one("#answers").text, "a share beside the warning would contradict it"
    page.one("#answers .anyway summary").click()
    assert len(page.visible("#answers .bars dt")) == 3


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844)])
def test_a_phone_shows_the_result_without_scrolling(page, pictures, width, height):
    page.emulate(width, height)
    page.upload(pictures["trousers"])
    page.wait(lambda: page.all("#answers .bars"))
    assert page.driver.execute_script("return window.scrollY") == 0
    bars = page.one("#answers .bars").rect
    assert bars["y"] + bars["height"] <= height
    assert page.one("#drop").size["height"] < 70, "the drop zone is a line"


@needs_browser
def test_the_first_screen_says_what_this_is_and_how_good(page, client):
    photos = client.get("/models/fashionnet-photo").json()["card"]["metrics"]["photos"]
    (default,) = [model for model in client.get("/models").json()["models"] if model["default"]]
    page.wait(lambda: page.one("#accuracy").text)
    assert "ten classes of Fashion-MNIST" in page.one(".intro").text
    assert f"{default['metrics']['test']['accuracy']:.1%} of 10,000 test images" in page.one("#accuracy").text
    assert f"{photos['accuracy']:.1%} of {photos['count']:,} phone photos" in page.one("#accuracy").text


@needs_browser
def test_the_sample_of_every_class_is_of_that_class(page):
    labels = [button.text for button in page.all("#samples button")]
    assert sorted(labels) == sorted(CLASSES)
    for count, label in enumerate(labels, 1):
        page.one(f"#samples button[title='{label}']").click()
        page.wait(lambda: len(page.all("#answers > li")) == count)  # noqa: B023 - called before the next round
    page.wait(lambda: len(page.all("#answers .answer")) == len(labels))
    assert page.texts("#answers .answer") == labels[::-1]


@needs_browser
def test_bars_are_level_with_their_text_and_of_their_share(page, pictures):
    page.upload(pictures["trousers"])
    page.wait(lambda: page.all("#answers .bars"))
    text, drawn = page.one("#answers .bars dt").rect, page.one("#answers .bars .bar").rect
    assert abs(text["y"] + text["height"] / 2 - drawn["y"] - drawn["height"] / 2) < 1
    page.one("#answers .evidence summary").click()
    widths = "return [...document.querySelectorAll('#answers .fill')].map((each) => each.getBBox().width)"
    assert min(page.driver.execute_script(widths)) < 0.1, "no stub where the share is none"


PASTE = """
    const transfer = new DataTransfer();
    transfer.setData("text/plain", arguments[0]);
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
"""


@needs_browser
def test_pasted_text_gets_a_message_on_the_tab_that_classifies(page):
    page.open("gallery")
    page.awaited("#gallery-items button").click()
    page.awaited("#gallery-detail[open]")
    for text, message in (
        ("https://a.example/shirt.jpg", "save the picture"),
        ("a shirt", "There is no picture in what"),
    ):
        page.driver.execute_script(PASTE, text)
        page.wait(lambda: message in page.one("#predict-problem").text)  # noqa: B023 - called before the next round
    page.one("#sketch-start").click()
    assert page.one("#sketch").is_displayed(), "no dialog is in the way"


@needs_browser
def test_a_picture_dragged_from_another_page_gets_a_message(page):
    page.drag(
        {"items": [{"mimeType": "text/uri-list", "data": "https://a.example/shirt.jpg"}], "dragOperationsMask": 1}
    )
    page.wait(lambda: "save the picture" in page.one("#predict-problem").text)


@needs_browser
@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_the_pictures_of_a_folder_are_classified_and_the_rest_is_left_out(page, tmp_path, way):
    inside = tmp_path / "clothes" / "summer"
    inside.mkdir(parents=True)
    for path in (inside / "2.png", inside / "10.png"):
        path.write_bytes(grey_png())
    (inside / "notes.txt").write_text("no picture")
    page.drop(tmp_path) if way == "dropped" else page.one("#folder").send_keys(str(tmp_path))
    page.wait(lambda: page.one("#predict-status").text == "2 of 2 classified.")
    assert sorted(page.texts("#answers .name")) == ["10.png", "2.png"]


@needs_browser
def test_a_folder_without_pictures_gets_a_message(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    page.drop(tmp_path)
    page.wait(lambda: "There are no pictures in this folder" in page.one("#predict-problem").text)


@needs_browser
def test_a_drawing_is_classified(page):
    page.one("#sketch-start").click()
    ActionChains(page.driver).click_and_hold(page.one("#sketch")).move_by_offset(0, 60).release().perform()
    page.one("#sketch-classify").click()
    page.wait(lambda: page.all("#answers .choice"))
    assert "28x28 grey picture" in page.one("#answers .choice").text


@needs_browser
def test_the_webcam_gives_live_results_until_it_is_stopped_or_the_page_hidden(page):
    for end in (page.one("#webcam-stop").click, page.hide):
        page.one("#webcam-start").click()
        results = len(classifications(page))
        page.wait(lambda: len(classifications(page)) >= results + 3)  # noqa: B023 - called before the next round
        assert page.one("#webcam-result").text.endswith(".")
        end()
        page.wait(lambda: not page.one("#webcam").is_displayed())
        assert page.driver.execute_script("return document.getElementById('webcam-video').srcObject") is None
        assert page.focused().get_attribute("id") == "webcam-start"


def classifications(page) -> list[str]:
    """The calls of /predict so far."""
    names = "return performance.getEntriesByType('resource').map(({ name }) => name)"
    return [name for name in page.driver.execute_script(names) if "/predict" in name]


@needs_browser
def test_a_picture_of_the_webcam_is_a_result(page):
    page.one("#webcam-start").click()
    page.wait(lambda: page.one("#webcam-take").is_displayed())
    page.one("#webcam-take").click()
    page.wait(lambda: page.texts("#answers .name") == ["webcam.jpg"])


@needs_browser
def test_a_webcam_that_is_refused_gets_a_message(page):
    page.driver.execute_script("navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('refused'))")
    page.one("#webcam-start").click()
    page.wait(lambda: "allow it in the browser" in page.one("#predict-problem").text)


@needs_browser
def test_phones_offer_their_camera_and_computers_the_webcam(page):
    assert page.one("#webcam-start").is_displayed()
    assert not page.one("label:has(#camera)").is_displayed()
    page.emulate(390, 844)
    assert page.one("label:has(#camera)").is_displayed()
    assert page.one("#camera").get_attribute("capture") == "environment"
    assert "Drop" not in page.one("#drop").text, "nobody drops a file on a phone"
    assert not page.one("#webcam-start").is_displayed()


COLOURS = """
    const image = document.querySelector("#answers .pixels");
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.some((value, i) => i % 4 === 0 && (value !== pixels[i + 1] || value !== pixels[i + 2]));
"""


@needs_browser
def test_the_input_of_the_photo_model_is_shown_in_colour_at_its_own_size(page, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encode(scene("wood")[0], "JPEG"))
    (row,) = page.upload(tmp_path / "photo.jpg")
    assert row
    page.wait(lambda: "224x224 pixels" in page.one("#answers").text)
    assert "Model: fashionnet-photo. Reason: photo." in page.one("#answers").text
    assert page.one("#answers .pixels").size == {"width": 224, "height": 224}
    assert page.driver.execute_script(COLOURS)


@needs_browser
def test_the_service_chooses_the_model_by_the_picture_until_one_is_chosen(page, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encode(scene("wood")[0], "JPEG"))
    assert "model=" not in page.one("#predict-curl").text
    Select(page.one("#model")).select_by_value("fashionnet")
    assert "model=fashionnet" in page.one("#predict-curl").text
    page.upload(tmp_path / "photo.jpg")
    page.wait(lambda: page.all("#answers .choice"))
    assert "Model: fashionnet. Reason: the request names this model" in page.one("#answers .choice").text


@needs_browser
def test_many_files_are_rows_in_their_order_and_a_bad_one_is_a_sentence(page, pictures, downloads):
    rows = page.upload(*pictures.values())
    assert [row.splitlines()[-2] for row in rows] == ["trousers.png", "noise.png", "bad.png"]
    assert "This is not a picture" in rows[2]
    assert page.one("#predict-status").text == "2 of 3 classified, 1 failed."
    page.one("#csv").click()
    table_file = downloads / "fashionnet.csv"
    page.wait(lambda: table_file.exists() and table_file.stat().st_size)
    with table_file.open(newline="") as file:
        reader = csv.DictReader(file)
        table = {row["file"]: row for row in reader}
    assert reader.fieldnames == list(COLUMNS), "those of `fashionnet predict`"
    assert table["trousers.png"]["class_id"] == "1"
    assert list(table) == ["trousers.png", "noise.png", "bad.png"]
    assert table["trousers.png"]["label"] == "Trouser"
    assert float(table["trousers.png"]["Trouser"]) == float(table["trousers.png"]["confidence"])
    assert table["trousers.png"]["model_choice"] == "picture with a plain background"
    assert table["trousers.png"]["model_version"]
    assert table["bad.png"]["error"].startswith("This is not a picture")


@needs_browser
def test_results_are_summed_up_filtered_removed_cleared_and_brought_back(page, pictures):
    page.upload(*pictures.values())
    groups = [button.text for button in page.all("#groups button")]
    assert groups == ["All 3", "Trouser 1", "Not one of the ten 1", "Failed 1"]
    page.all("#groups button")[2].click()
    colours = [button.value_of_css_property("background-color") for button in page.all("#groups button")]
    assert colours[2] not in colours[:2], "the pressed button shows"
    assert page.texts("#answers .name") == ["noise.png"]
    page.visible("#answers .remove")[0].click()
    assert page.texts("#answers .name") == ["trousers.png", "bad.png"]
    page.one("#clear").click()
    assert page.texts("#answers .name") == []
    page.one("#undo").click()
    assert page.texts("#answers .name") == ["trousers.png", "bad.png"]


@needs_browser
def test_results_are_sorted(page, pictures):
    page.upload(*pictures.values())
    for order, names in (
        ("name", ["bad.png", "noise.png", "trousers.png"]),
        ("class", ["trousers.png", "noise.png", "bad.png"]),
        ("sureness", ["noise.png", "bad.png", "trousers.png"]),
    ):
        Select(page.one("#order")).select_by_value(order)
        assert page.texts("#answers .name") == names


BUSY = """
    const fetch = window.fetch;
    window.asked = 0;
    window.fetch = (...all) => (window.asked += 1) > arguments[0] ? fetch(...all)
      : Promise.resolve(new Response("{}", { status: 429, headers: { "Retry-After": "1" } }));
"""


@needs_browser
def test_a_busy_service_is_asked_again_after_the_time_it_names(page, pictures):
    page.driver.execute_script(BUSY, 1)
    (row,) = page.upload(pictures["trousers"])
    assert row.startswith("Trouser")
    assert page.driver.execute_script("return window.asked") == 2


@needs_browser
def test_what_waits_can_be_cancelled(page, pictures):
    page.driver.execute_script(BUSY, 1000)
    page.one("#files").send_keys("\n".join(map(str, pictures.values())))
    page.wait(lambda: page.one("#cancel").is_displayed())
    page.one("#cancel").click()
    page.wait(lambda: not page.all("#answers > li"))
    assert page.focused().tag_name != "body"


@needs_browser
def test_two_hundred_pictures_stay_fast(page, tmp_path):
    paths = [tmp_path / f"{i:03}.png" for i in range(200)]
    for i, path in enumerate(paths):
        path.write_bytes(grey_png(i))
    page.upload(*paths)
    assert page.texts("#answers .name")[::199] == ["000.png", "199.png"]
    filtering = "const start = performance.now(); arguments[0].click(); return performance.now() - start"
    assert page.driver.execute_script(filtering, page.one("#groups button:last-child")) < 500


@needs_browser
def test_a_sample_is_explained(page):
    page.one("#samples button[title=Trouser]").click()
    page.wait(lambda: page.all("#answers .explain"))
    page.one("#answers .explain").click()
    heat, picture = page.awaited("#answers .map"), page.one("#answers .heat .over")
    page.wait(lambda: heat.get_property("naturalWidth") > 200)
    assert "supports Trouser" in page.one("#answers .heat figcaption").text
    assert heat.rect == picture.rect
    page.one("#answers .heat input").send_keys(Keys.END)
    assert picture.value_of_css_property("opacity") == "0", "only the heat map"


@needs_browser
def test_the_same_picture_is_answered_by_every_model_in_one_row(page, pictures):
    page.upload(pictures["trousers"])
    page.awaited("#answers .compare").click()
    page.awaited(".comparison img")
    assert page.texts(".comparison th") == ["fashionnet", "fashionnet-deep", "fashionnet-photo"]
    answers = page.texts(".comparison tbody tr:only-child td")
    assert len(answers) == 3
    assert answers[0].startswith("Trouser\nSure, 9")


@needs_browser
def test_the_command_names_the_picture_and_is_copied(page, pictures):
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite", "videoCapture"]}
    )
    page.upload(pictures["trousers"])
    page.one("#predict .copy").click()
    page.wait(lambda: page.one("#predict .copy").text == "Copied")
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert page.driver.execute_async_script(read) == page.one("#predict-curl").text
    assert "file=@trousers.png" in page.one("#predict-curl").text


@needs_browser
def test_the_gallery_filters_and_shows_the_ten_bars_of_an_image(page):
    page.open("gallery")
    page.wait(lambda: len(page.all("#gallery-items li")) == 40)
    Select(page.one("select[name=label]")).select_by_value("Bag")
    labels = "return [...document.querySelectorAll('#gallery-items span:last-child')].map((each) => each.textContent)"
    page.wait(lambda: set(page.driver.execute_script(labels)) == {"true Bag"})
    assert page.one("#gallery-status").text == "1 to 20 of 20 images."
    assert not page.one("#gallery-pages").is_displayed()
    assert "label=Bag" in page.one("#gallery-curl").text


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_gallery_is_paged_and_a_click_shows_an_image_large(page, width):
    page.emulate(width, 800)
    page.open("gallery")
    page.wait(lambda: page.one("#gallery-status").text == "1 to 40 of 200 images.")
    page.all("#gallery-items button")[-1].click()
    heat = page.awaited("#gallery-detail .map")
    page.wait(lambda: heat.get_property("naturalWidth") > 0)
    assert page.one("#gallery-detail .over").size["width"] >= 300
    assert len(page.visible("#gallery-detail .bars dt")) == 3
    last = page.one("#gallery-title").text
    assert "true class" in last
    page.one("#image-next").click()
    page.wait(lambda: page.one("#gallery-status").get_property("textContent") == "41 to 80 of 200 images.")
    assert page.one("#gallery-title").text != last
    page.one("#image-previous").click()
    page.wait(lambda: page.one("#gallery-title").text == last)
    page.focused().send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.one("#gallery-detail").is_displayed())
    assert page.focused().get_attribute("id") == page.all("#gallery-items button")[-1].get_attribute("id")


@needs_browser
def test_reload_and_back_keep_tab_model_filters_and_image(page):
    Select(page.one("#model")).select_by_value("fashionnet-deep")
    page.open("gallery")
    Select(page.one("select[name=label]")).select_by_value("Bag")
    page.wait(lambda: "of 20 images" in page.one("#gallery-status").text)
    page.all("#gallery-items button")[3].click()
    page.awaited("#gallery-detail .bars")
    title = page.one("#gallery-title").text
    page.driver.refresh()
    page.wait(lambda: page.one("#gallery-title").text == title)
    assert page.one("#model").get_property("value") == "fashionnet-deep"
    assert page.one("select[name=label]").get_property("value") == "Bag"
    tile = page.all("#gallery-items button")[3].get_attribute("id")
    page.driver.back()
    page.wait(lambda: not page.one("#gallery-detail").is_displayed())
    assert page.focused().get_attribute("id") == tile
    for shown in (
        lambda: page.one("select[name=label]").get_property("value") == "",
        lambda: page.one("#predict").is_displayed(),
        lambda: page.one("#model").get_property("value") == "",
    ):
        page.driver.back()
        page.wait(shown)


@needs_browser
def test_the_evaluation_shows_figures_and_the_images_behind_a_cell(page):
    page.open("evaluation")
    page.wait(lambda: page.all("#evaluation .big"))
    assert page.one("#evaluation .big").text.endswith("%")
    assert "95% confidence interval" in page.one("#evaluation-content").text
    assert page.one("#evaluation .chart").get_attribute("aria-label").startswith("Reliability diagram")
    cell = page.all(".confusion button")[0]
    count = int(cell.text)
    page.driver.execute_script("arguments[0].click()", cell)
    page.wait(lambda: page.one("#gallery").is_displayed())
    page.wait(lambda: len(page.all("#gallery-items li")) == min(40, count))


@needs_browser
def test_an_address_that_names_what_there_is_not_shows_the_start_or_a_message(page):
    page.driver.get(f"{page.address}?tab=constructor&model=nope")
    page.awaited("#model option")
    assert page.one("#predict").is_displayed()
    assert page.one("#model").get_property("value") == ""
    page.driver.get(f"{page.address}?tab=gallery&page=-1")
    page.wait(lambda: "page" in page.one("#gallery-problem").text)


@needs_browser
def test_two_models_are_evaluated_side_by_side(page):
    page.text_of("evaluation", ".big")
    Select(page.one("#other")).select_by_value("fashionnet-deep")
    columns = page.wait(lambda: (found := page.all("#evaluation .side > div"))[1:] and found)
    assert [column.find_element("tag name", "h2").text for column in columns] == ["fashionnet", "fashionnet-deep"]
    for selector in ("h2", ".confusion", ".chart"):
        one, other = (column.find_element("css selector", selector).rect for column in columns)
        assert one["y"] == other["y"], selector
        assert one["x"] < other["x"]
    cell = columns[1].find_element("css selector", ".confusion button")
    assert cell.accessible_name.endswith("by fashionnet-deep"), "the other matrix may have the same number"
    page.driver.execute_script("arguments[0].click()", cell)
    page.wait(lambda: page.one("#gallery").is_displayed())
    assert page.one("#model").get_property("value") == "fashionnet-deep", "that of the cell"


@needs_browser
def test_charts_and_tables_of_the_evaluation_name_their_axes_on_phones_too(page_without_data):
    page = page_without_data
    page.emulate(390, 844)
    page.text_of("evaluation", ".big")
    assert sorted(chart_texts(page, "#evaluation")) == sorted(["Confidence", "Accuracy", *["0%", "50%", "100%"] * 2])
    assert {"True class", "Predicted class"} <= set(page.texts(".confusion th"))
    table, name = page.one(".wide:has(.confusion)"), page.one(".confusion tbody th")
    page.driver.execute_script("arguments[0].scrollLeft = 200", table)
    assert page.driver.execute_script("return arguments[0].scrollLeft", table) > 100
    assert name.rect["x"] >= table.rect["x"], "the first column stays"


def chart_texts(page, selector: str) -> list[str]:
    """The titles of axes, ticks and curves."""
    script = "return [...document.querySelectorAll(arguments[0] + ' .chart text')].map((each) => each.textContent)"
    return page.driver.execute_script(script, selector)


@needs_browser
def test_the_model_tab_shows_the_card_and_that_of_another_network(page, client, artifact):
    page.open("models")
    page.wait(lambda: "1,199,882" in page.one("#models-content").text)
    served = {row.split("\t")[0]: row.split("\t")[1:4] for row in page.texts("#models .wide:first-child tbody tr")}
    accuracy = {m["name"]: f"{m['metrics']['test']['accuracy']:.2%}" for m in client.get("/models").json()["models"]}
    photos = client.get("/models/fashionnet-photo").json()["card"]["metrics"]["photos"]["accuracy"]
    assert served == {
        "fashionnet": ["All pictures but photos", accuracy["fashionnet"], "\N{EN DASH}"],
        "fashionnet-deep": ["Requests that name it", accuracy["fashionnet-deep"], "\N{EN DASH}"],
        "fashionnet-photo": ["Photos", accuracy["fashionnet-photo"], f"{photos:.2%}"],
    }
    assert page.one("#models .chart").get_attribute("aria-label").startswith("Accuracy over")
    epochs = str(len(artifact.card.history))
    assert {"Epoch", "1", epochs, "Accuracy", "85%", "92.5%", "100%"} <= set(chart_texts(page, "#models"))
    Select(page.one("#model")).select_by_value("fashionnet-deep")
    page.wait(lambda: "2,725,290" in page.one("#models-content").text)
    assert "models/fashionnet-deep" in page.one("#models-curl").text
    assert "28x28 pixels in grey, as in Fashion-MNIST" in page.one("#models-content").text
    Select(page.one("#model")).select_by_value("fashionnet-photo")
    page.wait(lambda: "224x224 pixels in colour, photos" in page.one("#models-content").text)
    assert "None was measured on photos of bags" in page.one("#models-content").text


@needs_browser
def test_without_the_data_the_tabs_show_what_the_card_knows(page_without_data, artifact, engine):
    page = page_without_data
    card = artifact.card.measured_with(engine.name)["test"]
    accuracy, shirts = f"{card.accuracy:.2%}", f"{card.classes[6].f1:.1%}"
    for tab in ("gallery", "evaluation"):
        text = page.text_of(tab, ".big")
        assert page.errors() == []
        assert page.one(f"#{tab} .big").text == accuracy
        assert f"Shirt {shirts}" in text
        assert "This service has no test images." in text
        assert f"run `{download_command()}` to download Fashion-MNIST" in text
        assert artifact.card.version in text
    counts = [int(cell.text) for cell in page.all(".confusion td span")]
    assert counts == [count for row in card.confusion_matrix for count in row if count]
    assert page.one("#evaluation .chart").get_attribute("aria-label").startswith("Reliability diagram")
    page.all(".confusion td span")[0].click()
    assert page.one("#evaluation").is_displayed(), "there are no images to go to"
    assert page.errors() == []


@needs_browser
def test_a_card_of_short_figures_shows_them(driver, client_of_old_cards, artifact):
    with watched(driver, client_of_old_cards) as page:
        for tab in ("gallery", "evaluation"):
            assert f"{artifact.card.metrics['test'].accuracy:.2%}" in page.text_of(tab, ".big")
            assert page.errors() == []
        assert not page.all(".confusion")


@needs_browser
def test_one_precision_is_shown_and_named(page_without_data, artifact, engine):
    """The figures are those of the graph that answers, on every tab."""
    page = page_without_data
    accuracy = f"{artifact.card.measured_with(engine.name)['test'].accuracy:.2%}"
    precision = "8 bits" if engine.name == "onnx-int8" else "full precision"
    assert f"Figures in {precision}" in page.text_of("models", "table")
    for tab, awaited in (("gallery", ".big"), ("evaluation", ".big"), ("models", "table")):
        text = page.text_of(tab, awaited)
        assert accuracy in text
        assert precision in text


@needs_browser
def test_calibration_is_claimed_for_the_images_that_the_network_is_for(page_without_data):
    page = page_without_data
    assert "The confidence is calibrated on images of the data set." in page.text_of("evaluation", ".big")
    Select(page.one("#model")).select_by_value("fashionnet-photo")
    on_test_images = "The confidence is calibrated on photos, so on these images it may be off."
    page.wait(lambda: on_test_images in page.one("#evaluation").text)
    assert "The confidence is calibrated on these photos." in page.one("#evaluation").text


@needs_browser
def test_figures_on_photos_are_shown_beside_those_on_the_test_images(driver, client_of_photo_figures, artifact):
    photos = artifact.card.metrics["validation"]
    accuracy = f"{photos.accuracy:.2%}"
    with watched(driver, client_of_photo_figures) as page:
        assert f"{accuracy}\nof {photos.count:,} photos are right." in page.text_of("evaluation", ".big")
        assert f"photos {accuracy}" in page.text_of("models", "table")
        assert "Somebody's photos" in page.one("#models-content").text
        assert page.errors() == []


def test_curl_writes_no_error_into_a_file():
    commands = [line for path in (ROOT / "app" / "static").glob("*.*") for line in path.read_text().splitlines()]
    writing = [line for line in commands if "curl" in line and " -o " in line]
    assert writing
    assert all("curl -f " in line for line in writing)


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


def test_the_samples_are_the_examples():
    folders = ROOT / "examples", ROOT / "app" / "static" / "examples"
    examples, samples = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert "shirt.png" in examples
    assert samples == examples, "run: python scripts/draw_examples.py"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_the_page_is_up_to_date_small_and_shown(name):
    assert digest_in(FOLDER / name) == digest(), f"the page or a network has changed: run {COMMAND}"
    assert (FOLDER / name).stat().st_size < 150_000
    assert f"]({name})" in (FOLDER / "page.md").read_text()


@needs_browser
def test_the_script_draws_every_picture_of_the_page(driver, client_without_data, tmp_path):
    draw_pictures(driver, f"{client_without_data.base_url}/", tmp_path)
    for name, picture in PICTURES.items():
        with Image.open(tmp_path / name) as image:
            assert image.width == picture.width
            assert len(image.getcolors() or []) > 30, "it is not blank"


STYLE = (ROOT / "app" / "static" / "page.css").read_text()


def test_there_is_one_scale_of_font_sizes():
    sizes = re.findall(r"font-size: ([^;}]+)", STYLE.replace("font-size: 11px", ""))
    assert set(sizes) <= {"var(--small)", "1rem", "var(--large)", "var(--huge)"}


def test_nothing_moves_by_itself():
    assert not re.search("animation|transition|scroll-behavior|@keyframes", STYLE)
