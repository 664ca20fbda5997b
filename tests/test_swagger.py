"""Swagger at /docs, in Chromium: "Execute" works for every operation with what is filled in."""

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from app.settings import Settings
from tests.browser import browser, needs_browser
from tests.servers import ROOT, serve

EXECUTE_ALL = """
const [data, done] = given;
const picture = new Uint8Array(data);
const wait = async (find) => {
  while (!find()) await new Promise((resolve) => setTimeout(resolve, 20));
  return find();
};
async function execute(operation) {
  const one = (selector) => operation.querySelector(selector);
  one(".opblock-summary-control").click();
  (await wait(() => one(".try-out__btn"))).click();
  await wait(() => one(".execute"));
  for (const input of operation.querySelectorAll("input[type=file]")) {
    const files = new DataTransfer();
    files.items.add(new File([picture], "bag.png"));
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }
  one(".execute").click();
  const status = await wait(() => one(".live-responses-table tbody .response-col_status")?.innerText.trim());
  one(".opblock-summary-control").click();
  return status.split(/\\s/)[0];
}
const found = {};
for (const operation of document.querySelectorAll(".opblock")) found[operation.id] = await execute(operation);
done(found);
"""


@pytest.fixture(scope="module")
def driver(small_data, tmp_path_factory):
    """Chromium with Swagger."""
    with serve(Settings(data_dir=small_data.root)) as client, browser(tmp_path_factory.mktemp("swagger")) as driver:
        driver.set_script_timeout(300)
        driver.get(f"{client.base_url}/docs")
        WebDriverWait(driver, 60).until(lambda _: driver.find_elements("css selector", ".opblock"))
        yield driver


@pytest.mark.slow
@needs_browser
def test_every_operation_can_be_executed(driver, client):
    picture = list((ROOT / "examples" / "bag.png").read_bytes())
    found = driver.execute_async_script(f"(async (...given) => {{{EXECUTE_ALL}}})(...arguments)", picture)
    operations = [method for path in client.get("/openapi.json").json()["paths"].values() for method in path]
    assert len(found) == len(operations)
    assert set(found.values()) == {"200"}, found


@needs_browser
@pytest.mark.parametrize(("scheme", "shade"), [("dark", "rgb(28, 32, 34)"), ("light", "rgba(0, 0, 0, 0)")])
def test_swagger_is_dark_if_the_system_is(driver, scheme, shade):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    read = "return getComputedStyle(document.documentElement).backgroundColor"
    WebDriverWait(driver, 10).until(lambda _: driver.execute_script(read) == shade)
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
