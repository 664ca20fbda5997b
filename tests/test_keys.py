"""API keys: who may call what, how a key is sent, changed and counted, and that it stays a secret."""

import json
import os
import re
import socket
import subprocess

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import WebDriverWait

from app import keys as api_keys
from app.commands import key as key_command
from app.keys import KeyFileError, create_key
from app.main import create_app
from tests.browser import TABS, Page, browser, needs_browser
from tests.pictures import grey_png
from tests.problems import assert_problem
from tests.servers import serve, wait_until

FILES = {"file": grey_png()}
KEYLESS = ["/", "/page/page.js", "/docs", "/static-offline-docs/swagger-ui.css", "/openapi.json", "/health/live",
           "/health/ready", "/v2/health/live", "/v2/health/ready"]  # fmt: skip
GUARDED = [
    "/models",
    "/metrics",
    "/evaluate",
    "/gallery",
    "/v2",
    "/v2/models/fashionnet/ready",
    "/nothing",
    "/docsx",
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The file of the keys of ``shop`` and ``press``; the keys."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    made = {name: create_key(name) for name in ("shop", "press")}
    path.write_text("# who may call\n  # and who else\n\n" + "".join(f"{line}\n" for _, line in made.values()))
    return path, {name: key for name, (key, _) in made.items()}


@pytest.fixture(scope="module")
def guarded(settings, keys):
    with serve(settings.model_copy(update={"api_keys_file": keys[0], "root_path": "/fashion"})) as client:
        yield client


def headers(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


@pytest.mark.parametrize("prefix", ["", "/fashion"])
def test_the_page_the_documentation_and_health_need_no_key(guarded, prefix):
    assert {path: guarded.get(prefix + path).status_code for path in KEYLESS} == dict.fromkeys(KEYLESS, 200)


@pytest.mark.parametrize("prefix", ["", "/fashion"])
def test_all_else_needs_one(guarded, prefix):
    for path in GUARDED:
        answer = guarded.get(prefix + path)
        assert_problem(answer, 401, "invalid-key") if not path.startswith("/v2") else None
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="FashionNet"')
    assert guarded.post(f"{prefix}/predict", files=FILES).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", None])
def test_a_key_is_sent_in_either_header(guarded, keys, scheme):
    key = keys[1]["shop"]
    sent = {"Authorization": scheme + key} if scheme else headers(key)
    assert guarded.post("/predict", files=FILES, headers=sent).status_code == 200
    assert guarded.get("/models", headers=sent).status_code == 200


def test_another_key_is_rejected_and_the_message_says_so(guarded, keys):
    missing = guarded.get("/models").json()["detail"]
    shop = keys[1]["shop"]
    for sent in (shop[:-1], shop + "x", shop.upper(), "", "é"):
        answer = guarded.get("/models", headers={"X-API-Key": sent.encode()})
        assert_problem(answer, 401, "invalid-key")
        assert answer.json()["detail"] != missing
    basic = guarded.get("/models", headers={"Authorization": f"Basic {shop}"})
    assert (basic.status_code, basic.json()["detail"]) == (401, missing)


def test_it_is_rejected_before_the_body_is_read(guarded):
    address = guarded.base_url.host, guarded.base_url.port
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_requests_are_counted_by_the_name_of_their_key(guarded, keys):
    def count() -> float:
        text = guarded.get("/metrics", headers=headers(keys[1]["shop"])).text
        found = re.findall(r'^fashionnet_key_requests_total\{key="press"\} (.+)$', text, re.MULTILINE)
        return sum(map(float, found))

    before = count()
    guarded.post("/predict", files=FILES, headers=headers(keys[1]["press"]))
    guarded.post("/predict", files=FILES, headers=headers("press"))
    assert count() == before + 1


def test_the_document_has_the_schemes_where_a_key_is_needed(guarded, client):
    document = guarded.get("/openapi.json").json()
    assert {scheme["type"] for scheme in document["components"]["securitySchemes"].values()} == {"http", "apiKey"}
    assert len(document["paths"]["/predict"]["post"]["security"]) == 2
    (media,) = document["paths"]["/predict"]["post"]["responses"]["401"]["content"].values()
    assert media["examples"]["invalid-key"]["value"]["status"] == 401
    assert "security" not in document["paths"]["/health/live"]["get"]
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_a_change_of_the_file_takes_effect_and_a_broken_one_none(tmp_path, settings, caplog, monkeypatch):
    monkeypatch.setattr("app.keys.LOOK_SECONDS", 0.1)
    path = tmp_path / "keys"
    (old, old_line), (new, new_line) = create_key("old"), create_key("new")
    path.write_text(old_line)
    with serve(settings.model_copy(update={"api_keys_file": path})) as client:

        def status(key: str) -> int:
            return client.get("/models", headers=headers(key)).status_code

        assert (status(old), status(new)) == (200, 401)
        path.write_text(f"{old_line}\n{new_line}\n")
        wait_until(lambda: status(new) == 200, 5)
        path.write_text(new_line)
        wait_until(lambda: status(old) == 401, 5)
        path.write_text(f"oops {old}")
        wait_until(lambda: status(new) == 200 and "stay as they are" in caplog.text, 5)
        path.unlink()
        wait_until(lambda: status(new) == 200 and "cannot be read" in caplog.text, 5)
    assert caplog.text.count("stay as they are") == 2, "once for each change"
    assert old not in caplog.text
    assert new not in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("", "has none"), ("# none\n", "has none"), ("shop:abc\n", "Line 1 "),
     ("secret\n", "Line 1 "), (f"a:{64 * 'a'}\nb b:{64 * 'a'}", "Line 2 ")],
)  # fmt: skip
def test_a_missing_or_broken_file_is_one_sentence(tmp_path, content, words):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KeyFileError, match=words) as error:
        api_keys.Keys(path)
    sentence = str(error.value)
    assert "fashionnet key NAME" in sentence
    assert "\n" not in sentence
    assert "secret" not in sentence


def test_such_a_file_ends_the_start(tmp_path, settings):
    with pytest.raises(SystemExit, match=r"^fashionnet: The file of API keys .* cannot be read"):
        create_app(settings.model_copy(update={"api_keys_file": tmp_path / "keys"}))


def test_the_command_prints_a_key_and_its_line(capsys, tmp_path):
    assert key_command.main(["shop-1"]) == 0
    key, line = (text.split(maxsplit=1)[1] for text in capsys.readouterr().out.splitlines())
    (tmp_path / "keys").write_text(line)
    keys = api_keys.Keys(tmp_path / "keys")
    assert keys.name_of(key.encode()) == "shop-1"
    assert keys.name_of(line.encode()) is None
    with pytest.raises(SystemExit):
        key_command.main(["a:b"])


KEY_OPTION = '-H "X-API-Key: $API_KEY"'
PASTE = """
    const transfer = new DataTransfer();
    transfer.setData("text/plain", "a key");
    const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
    document.querySelector("#key input").dispatchEvent(event);
"""


@needs_browser
def test_the_page_asks_for_the_key_keeps_it_and_names_it_in_its_commands(guarded, keys, tmp_path):
    def answer(key: str, reason: str) -> None:
        (field,) = WebDriverWait(driver, 30).until(lambda _: driver.find_elements("css selector", "#key input"))
        assert reason in driver.find_element("id", "key").text
        driver.execute_script(PASTE)
        assert not driver.find_element("id", "predict-problem").text, "a pasted key is no picture"
        field.send_keys(key, Keys.ENTER)
        WebDriverWait(driver, 30).until(staleness_of(field))

    with browser(tmp_path) as driver:
        driver.get(str(guarded.base_url.join("/fashion/")))
        answer("wrong", "asks for")
        answer(keys[1]["shop"], "does not know")
        WebDriverWait(driver, 30).until(lambda _: driver.find_elements("css selector", "#model option"))
        page = Page(driver, str(guarded.base_url.join("/fashion/")))
        page.wait(lambda: page.one("#accuracy").text)
        assert not page.all("#key")
        page.open("gallery")
        page.wait(lambda: [each for each in page.all("#gallery-items img") if each.get_property("naturalWidth")])
        for tab in TABS:
            page.open(tab)
            page.wait(lambda tab=tab: KEY_OPTION in page.one(f"#{tab}-curl").text)
            assert keys[1]["shop"] not in page.one(f"#{tab}").get_property("innerHTML")
        page.one("#models .copy").click()
        page.wait(lambda: page.one("#models .copy").text != "Copy")
        command = page.driver.execute_script("return getSelection().toString()") or page.one("#models-curl").text
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"API_KEY": keys[1]["shop"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["card"]["name"] == "fashionnet"


@needs_browser
def test_a_question_for_the_key_that_is_not_answered_leaves_the_command_with_a_key(guarded, tmp_path):
    with browser(tmp_path) as driver:
        driver.get(str(guarded.base_url.join("/fashion/")))
        WebDriverWait(driver, 30).until(lambda _: driver.find_elements("css selector", "#key input"))
        driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        WebDriverWait(driver, 30).until(lambda _: driver.find_element("id", "predict-problem").text)
        assert KEY_OPTION in driver.find_element("id", "predict-curl").text
