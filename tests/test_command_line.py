"""``python -m app`` as people type it: flags, misspelt variables, a port that is taken."""

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.commands import COMMANDS
from tests.pictures import grey_png
from tests.servers import children_of, client_of, free_port, port_of, process, run, wait_until

FASHIONNET = str(Path(sys.executable).with_name("fashionnet"))
SERVICE_LINKS = {
    "FASHIONNET_PORT": "tcp://10.96.12.34:80",
    "FASHIONNET_SERVICE_HOST": "10.96.12.34",
    "FASHIONNET_SERVICE_PORT": "80",
    "FASHIONNET_SERVICE_PORT_HTTP": "80",
    "FASHIONNET_PORT_80_TCP": "tcp://10.96.12.34:80",
    "FASHIONNET_PORT_80_TCP_PROTO": "tcp",
    "FASHIONNET_PORT_80_TCP_PORT": "80",
    "FASHIONNET_PORT_80_TCP_ADDR": "10.96.12.34",
}


@pytest.mark.parametrize("command", [[sys.executable, "-m", "app"], [FASHIONNET]], ids=["python -m app", "fashionnet"])
def test_help_shows_the_flags_and_the_settings(command):
    done = subprocess.run([*command, "--help"], text=True, capture_output=True, check=True)
    for words in ("--host", "--port", "--workers", "download", "FASHIONNET_MAX_PIXELS"):
        assert words in done.stdout
    settings = [line for line in done.stdout.splitlines() if re.match("  FASHIONNET_[A-Z_]+ ", line)]
    assert len({re.match(r"  \S+ +", line).end() for line in settings}) == 1, "the descriptions are a column"


def test_flags_override_the_environment_in_the_workers_too():
    variables = {"FASHIONNET_PORT": "1", "FASHIONNET_HOST": "0.0.0.0", "FASHIONNET_WORKERS": "1"}  # noqa: S104
    command = ["-m", "app", "--port", "0", "--host", "127.0.0.1", "--workers", "2"]
    with process(*command, **variables) as server, client_of(server) as client:
        wait_until(lambda: len(children_of(server)) == 2)
        server.terminate()
        _, log = server.communicate(timeout=20)
    assert str(client.base_url).rstrip("/") in log


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "high"], "--port='high'"),
        (["--port", "70000"], "--port='70000'"),
        (["--workers", "0"], "--workers='0'"),
        (["--model-dir", "nowhere"], "--model-dir='nowhere': this is not a folder"),
        (["--host", "1.2.3.4"], "cannot listen on 1.2.3.4"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
    ],
)
def test_a_flag_that_is_wrong_is_one_sentence(arguments, words):
    done = run("-m", "app", *arguments)
    assert done.returncode == 1
    assert re.fullmatch(rf"fashionnet: .*{re.escape(words)}.*\n", done.stderr), done.stderr


def test_an_unknown_flag_is_refused():
    done = run("-m", "app", "--prot", "1")
    assert done.returncode == 2
    assert "unrecognized arguments: --prot" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_named_with_the_setting(workers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("-m", "app", FASHIONNET_PORT=str(port), FASHIONNET_WORKERS=workers)
    assert done.returncode == 1
    assert done.stderr == (
        f"fashionnet: Port {port} on 127.0.0.1 is in use: stop the program that uses it, or choose another port by "
        "--port or FASHIONNET_PORT.\n"
    )


def test_a_misspelt_variable_is_named_once_with_the_nearest_setting():
    misspelt = {"FASHIONNET_PROT": "1", "fashionnet_datadir": "x", "FASHIONNET_QWERTY": "1"}
    with process("-m", "app", "--port", "0", "--workers", "2", **misspelt, **SERVICE_LINKS) as server:
        with client_of(server):
            server.terminate()
        _, log = server.communicate(timeout=20)
    warnings = [line.split(maxsplit=1)[1] for line in log.splitlines() if line.startswith("WARNING")]
    assert sorted(warnings) == [
        "FASHIONNET_PORT=tcp://10.96.12.34:80 is ignored: it describes a service of Kubernetes or Docker, not a port.",
        "FASHIONNET_PROT is ignored: there is no such setting; did you mean FASHIONNET_PORT?",
        "FASHIONNET_QWERTY is ignored: there is no such setting; `python -m app --help` lists the settings.",
        "fashionnet_datadir is ignored: there is no such setting; did you mean FASHIONNET_DATA_DIR?",
    ]


def test_uvicorn_alone_warns_and_ignores_service_links_too():
    command = ["-m", "uvicorn", "--factory", "app.main:create_app", "--port", "0"]
    with process(*command, FASHIONNET_PROT="1", **SERVICE_LINKS) as server:
        with client_of(server):
            server.terminate()
        _, log = server.communicate(timeout=20)
    assert log.count("did you mean FASHIONNET_PORT?") == 1
    assert log.count("describes a service of Kubernetes") == 1


def test_http_and_grpc_on_one_port_are_one_sentence():
    port = str(free_port())
    done = run("-m", "app", "--port", port, "--grpc-port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"fashionnet: HTTP and gRPC both have port {port}: choose another one by --grpc-port or FASHIONNET_GRPC_PORT.\n"
    )


def test_a_request_that_outlasts_the_time_to_stop_gets_a_problem():
    command = ["-m", "uvicorn", "--factory", "app.main:create_app", "--port", "0", "--timeout-graceful-shutdown", "1"]
    with (
        process(*command) as server,
        client_of(server),
        socket.create_connection(("127.0.0.1", port_of(server))) as one,
    ):
        one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(0.5)  # it has begun
        server.terminate()
        response = one.makefile("rb").read()
        _, log = server.communicate(timeout=20)
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in head.lower()
    assert json.loads(body)["detail"] == "The service stopped before this response was ready: send the request again."
    assert "Traceback" not in log


def test_the_scripts_warn_of_misspelt_variables(small_data):
    done = run("scripts/download.py", "--data-dir", str(small_data.root), FASHIONNET_DATADIR="x")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: FASHIONNET_DATADIR is ignored: there is no such setting; did you mean ")


def test_download_is_a_command_too(small_data):
    done = run("-m", "app", "download", "--data-dir", str(small_data.root), "--data-url", "http://127.0.0.1:9/")
    assert (done.returncode, done.stdout) == (0, f"Fashion-MNIST is complete in {small_data.folder}.\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_without_the_extras(command):
    code = "import sys; sys.modules.update(dict.fromkeys(['torch', 'pyarrow', 'ray', 'matplotlib', 'scipy', 'onnx']))"
    code += f"; from app.__main__ import main; main([{command!r}, '--help'])"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: fashionnet ")
    assert command in done.stdout


def test_an_unknown_command_lists_the_commands():
    done = run("-m", "app", "predcit", "x.png")
    assert done.returncode == 2
    assert f"there is no command 'predcit'; there are {', '.join(COMMANDS)}" in done.stderr


def test_a_command_and_its_script_do_the_same(tmp_path):
    (tmp_path / "a.png").write_bytes(grey_png())
    command, script = (
        run(*words, str(tmp_path / "a.png"), "--json") for words in (("-m", "app", "predict"), ("scripts/predict.py",))
    )
    assert (command.returncode, command.stdout) == (script.returncode, script.stdout)
    assert json.loads(command.stdout)["model"] == "fashionnet"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_start_shows_addresses_models_and_engine_once(workers):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with process("-m", "app", "--port", str(port), "--workers", workers, "--host", "0.0.0.0") as server:  # noqa: S104
        with client_of(server) as client:
            shown = client.get("/models").json()["models"]
            server.terminate()
        _, log = server.communicate(timeout=60)
    address = f"http://127.0.0.1:{port}/"
    assert log.count(f"page {address}, documentation {address}docs\n") == 1
    for model in shown:
        assert log.count(f"{model['name']} {model['version']} ({model['engine']}, ") == 1
