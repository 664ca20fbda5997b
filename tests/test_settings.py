from pathlib import Path

import pytest

from app.__main__ import address_of
from app.settings import RENAMED, Settings, SettingsError, environment_warnings, read_settings
from model import usable_cores
from model.errors import ArtifactMissing
from model.prediction import ModelPair
from tests.servers import ROOT, run


def test_the_defaults_serve_the_committed_weights_on_loopback():
    settings = read_settings()
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.1", 8000, "auto")
    assert settings.max_upload_bytes == 10_000_000
    assert settings.workers == usable_cores()
    assert (settings.model_dir / "fashionnet.json").is_file()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "high"), ("PORT", "70000"), ("WORKERS", "0"), ("ENGINE_THREADS", "0"), ("ENGINE", "tensorrt"),
     ("MODEL_DIR", "/proc/nowhere"), ("MAX_PIXELS", "-1"), ("LOG_LEVEL", "loud"),
     ("MAX_WAIT_SECONDS", "inf"), ("DECODE_SECONDS", "inf"),
     ("DRAIN_SECONDS", "1e300"), ("BODY_TIMEOUT_SECONDS", "nan"), ("MEMORY_BYTES", "9" * 23),
     ("KEEP_ALIVE_SECONDS", "3000000"), ("MAX_JSON_BYTES", "3000000000")],
)  # fmt: skip
def test_a_value_that_cannot_be_is_said_with_the_name_of_its_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"FASHIONNET_{name}", value)
    with pytest.raises(SettingsError, match=f"FASHIONNET_{name}") as error:
        read_settings()
    assert value in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("largest", "others"),
    [
        ("max_request_bytes", {}),
        ("max_upload_bytes", {"max_request_bytes": 1_000_000}),
        ("max_json_bytes", {"grpc_port": 9}),
    ],
)
def test_too_little_memory_names_the_setting_that_needs_it(largest, others):
    with pytest.raises(ValueError, match=f"set at least 300000000, or lower FASHIONNET_{largest.upper()}"):
        Settings(workers=1, memory_bytes=200_000_000, **{largest: 100_000_000, **others})


@pytest.mark.parametrize(("cores", "threads", "workers"), [(8, 1, 8), (8, 2, 4), (7, 2, 3), (2, 4, 1)])
def test_workers_and_their_threads_take_no_more_than_the_usable_cores(monkeypatch, cores, threads, workers):
    monkeypatch.setattr("app.settings.usable_cores", lambda: cores)
    monkeypatch.setenv("FASHIONNET_ENGINE_THREADS", str(threads))
    assert read_settings().workers == workers
    assert Settings(workers=5).workers == 5, "who asks for more gets it"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_read_with_a_warning_and_the_new_name_comes_first(monkeypatch, old, new):
    monkeypatch.setenv(f"FASHIONNET_{old.upper()}", "2")
    assert getattr(read_settings(), new) == 2
    (warning,) = environment_warnings()
    assert f"FASHIONNET_{old.upper()} is now called FASHIONNET_{new.upper()}" in warning
    monkeypatch.setenv(f"FASHIONNET_{new.upper()}", "3")
    assert getattr(read_settings(), new) == 3


def test_an_old_name_with_a_value_that_cannot_be_is_said(monkeypatch):
    monkeypatch.setenv("FASHIONNET_THREADS", "abc")
    with pytest.raises(SettingsError, match=r"^FASHIONNET_THREADS='abc': "):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value", "package", "extra"), [("ENGINE", "torch", "torch", "train"), ("GRPC_PORT", "1", "grpcio", "grpc")]
)
def test_what_is_not_installed_is_said_with_the_remedy(monkeypatch, name, value, package, extra):
    monkeypatch.setattr("app.settings.find_spec", lambda _name: None)
    monkeypatch.setenv(f"FASHIONNET_{name}", value)
    with pytest.raises(
        SettingsError, match=rf"^FASHIONNET_{name}='{value}': {package} is not installed; .*\[{extra}\]'\.$"
    ):
        read_settings()


@pytest.mark.parametrize(("name", "default"), [("port", 8000), ("grpc_port", None)])
def test_what_kubernetes_says_about_a_service_is_no_port(monkeypatch, name, default):
    monkeypatch.setenv(f"FASHIONNET_{name.upper()}", "tcp://10.96.12.34:80")
    assert getattr(read_settings(), name) == default
    (warning,) = environment_warnings()
    assert "is ignored: it describes a service" in warning


def test_what_kubernetes_says_about_another_service_is_no_misspelt_setting(monkeypatch):
    monkeypatch.setenv("FASHIONNET_WEB_PORT", "tcp://10.96.12.34:80")
    assert environment_warnings() == []


def test_a_misspelt_port_is_no_service_of_kubernetes(monkeypatch):
    monkeypatch.setenv("FASHIONNET_GPRC_PORT", "8001")
    (warning,) = environment_warnings()
    assert "did you mean FASHIONNET_GRPC_PORT?" in warning


@pytest.mark.parametrize(
    ("host", "address"),
    [("shop", "http://shop:80/"), ("::", "http://[::1]:80/"), ("fe80::1", "http://[fe80::1]:80/")],
)
def test_an_ipv6_address_stands_in_brackets(host, address):
    assert address_of(Settings(host=host, port=80)) == address


def test_the_data_folder_is_the_same_from_every_folder(tmp_path):
    code = "from app.settings import read_settings; print(read_settings().data_dir)"
    environment = {"PYTHONPATH": str(ROOT), "FASHIONNET_DATA_DIR": ""}
    found = {run("-c", code, cwd=folder, **environment).stdout for folder in (tmp_path, ROOT, ROOT / "notebooks")}
    assert found == {f"{ROOT / 'data'}\n"}


def test_a_tilde_is_the_home_folder_in_every_setting_of_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("FASHIONNET_DATA_DIR", "~/data")
    assert read_settings({"model_dir": "~/models"}).model_dir == tmp_path / "models"
    assert read_settings().data_dir == tmp_path / "data"
    monkeypatch.setenv("FASHIONNET_DATA_DIR", "~nobody-of-that-name/data")
    assert read_settings().data_dir == Path("~nobody-of-that-name/data")


def test_an_empty_variable_is_no_value(monkeypatch):
    monkeypatch.setenv("FASHIONNET_PORT", "")
    assert read_settings().port == 8000


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["fashionnet", "fashionnet-deep", "fashionnet-photo"], ModelPair("fashionnet", "fashionnet-photo")),
        (["fashionnet-deep"], ModelPair("fashionnet-deep", "fashionnet-deep")),
        (["mine"], ModelPair("mine", "mine")),
        (["a", "fashionnet"], ModelPair("fashionnet", "fashionnet")),
        (["a", "fashionnet", "fashionnet-photo"], ModelPair("fashionnet", "fashionnet-photo")),
    ],
)
def test_a_folder_with_one_model_needs_no_setting(names, chosen):
    assert Settings().models_among(names) == chosen


@pytest.mark.parametrize(
    ("default", "names", "words"),
    [
        (None, [], "it has no model"),
        (None, ["a", "b"], "it has a, b"),
        ("c", ["a"], "has no c"),
    ],
)
def test_a_folder_without_the_default_model_is_one_sentence(default, names, words):
    with pytest.raises(ArtifactMissing, match=words) as error:
        Settings(default_model=default).models_among(names)
    assert "FASHIONNET_MODEL_DIR" in str(error.value)
