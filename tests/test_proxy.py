"""The service behind real proxies: under a path of theirs that they strip or keep, with TLS, and for whom they say."""

import contextlib
import errno
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from app.server.sockets import bind
from app.settings import SettingsError, read_settings
from tests.held_engines import hold_engines
from tests.pictures import grey_png
from tests.problems import assert_problem
from tests.servers import ROOT, client_of, free_port, is_ready, process, serve, wait_until

PREFIX = "/fashion"
ORIGIN = "https://shop.example"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
TOO_LARGE = bytes(9_000_000)
"""More than the service takes, and less than the proxies do."""
MAIN = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
    server {{
        listen 127.0.0.1:{strips};
        location {prefix}/ {{ proxy_pass http://fashionnet/; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def service(settings):
    """The service as it is behind the proxies."""
    changes = {
        "root_path": PREFIX,
        "forwarded_allow_ips": ("127.0.0.1",),
        "cors_origins": (ORIGIN,),
        "access_log": True,
    }
    with serve(settings.model_copy(update=changes)) as client:
        yield client


@contextlib.contextmanager
def running(port: int, *command: object, **options: object) -> Iterator[None]:
    """A proxy, once it listens on ``port``."""
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL, **options) as proxy:
        try:
            wait_until(lambda: proxy.poll() is not None or listens(port))
            assert proxy.poll() is None, "the proxy has ended"
            yield
        finally:
            proxy.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The folder of a key and of a certificate for localhost that is signed by itself."""
    folder = tmp_path_factory.mktemp("certificate")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-nodes"]
    files = ["-newkey", "rsa:2048", "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run(["openssl", "req", "-x509", *files, *subject], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def trusting(certificate):
    """Trusts that certificate."""
    return ssl.create_default_context(cafile=certificate / "certificate.pem")


@pytest.fixture(scope="module")
def nginx(service, certificate, trusting, tmp_path_factory):
    """The addresses of the documented site, which has TLS and keeps the path, and of one that strips it."""
    if not NGINX:
        pytest.skip("there is no nginx: install nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    keeps, strips = free_port(), free_port()
    site = (ROOT / "deploy/nginx.conf").read_text()
    for old, new in {
        "127.0.0.1:8000": service.base_url.netloc.decode(),
        "listen 443": f"listen 127.0.0.1:{keeps}",
        "/etc/ssl/certs/fashionnet.pem": f"{certificate}/certificate.pem",
        "/etc/ssl/private/fashionnet.key": f"{certificate}/key.pem",
    }.items():
        assert old in site
        site = site.replace(old, new)
    (folder / "conf").write_text(MAIN.format(folder=folder, site=site, strips=strips, prefix=PREFIX))
    command = [NGINX, "-p", folder, "-c", folder / "conf", "-e", folder / "error.log"]
    options = {"verify": trusting, "follow_redirects": True, "timeout": 60}
    with running(keeps, *command), httpx.Client(**options) as client:
        yield client, {"keeps": f"https://localhost:{keeps}", "strips": f"http://127.0.0.1:{strips}"}


@pytest.fixture(params=["keeps", "strips"])
def proxied(request, nginx):
    client, addresses = nginx
    return client, addresses[request.param] + PREFIX


def links(text: str) -> list[str]:
    return re.findall(r"""\b(?:href=|src=|from |url: )["']([^"'#]+)["']""", text)


def test_the_page_and_all_it_loads_are_under_the_path(proxied):
    client, address = proxied
    page = client.get(address)
    assert page.status_code == 200
    assert str(page.url) == f"{address}/"
    loaded = {urljoin(str(page.url), link) for link in links(page.text)}
    assert f"{address}/docs" in loaded
    (script,) = (link for link in loaded if link.endswith(".js"))
    loaded |= {urljoin(script, link) for link in links(client.get(script).text)}
    assert len(loaded) > 9
    assert [link for link in loaded if client.get(link).status_code != 200] == []


def test_swagger_sends_its_requests_to_the_path(proxied):
    client, address = proxied
    page = client.get(f"{address}/docs")
    found = [urljoin(str(page.url), link) for link in links(page.text)]
    assert [client.get(link).status_code for link in found] == [200] * len(found)
    (document,) = (client.get(link).json() for link in found if link.endswith("/openapi.json"))
    api = urljoin(str(page.url), document["servers"][0]["url"])
    assert api == address
    answer = client.post(f"{api}/predict", files={"file": grey_png()})
    assert answer.json()["model"] == "fashionnet"


def test_a_response_that_comes_before_the_body_has_arrived_reaches_the_client(nginx):
    client, addresses = nginx
    assert_problem(client.post(addresses["keeps"] + "/predict", files={"file": TOO_LARGE}), 413, "too-large")


def test_problems_and_metrics_do_not_depend_on_the_path(proxied, service):
    client, address = proxied
    problem = client.post(f"{address}/v2/models/unknown/infer", json={"inputs": []})
    assert problem.status_code == 404
    assert problem.json()["error"] == problem.json()["detail"], "clients of the Open Inference Protocol read error"
    client.post(f"{address}/predict", files={"file": grey_png()})
    metrics = service.get("/metrics").text
    assert 'route="/predict",status="200"' in metrics
    assert f'route="{PREFIX}' not in metrics


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_the_documented_site_does_not_publish_the_metrics(nginx, prefix):
    client, addresses = nginx
    assert client.get(f"{addresses['keeps']}{prefix}/metrics").status_code == 404
    assert client.get(f"{addresses['keeps']}{prefix}/models").status_code == 200


CADDY = """
{{
    admin off
    skip_install_trust
    auto_https disable_redirects
}}
{site}
"""


@pytest.fixture
def caddy(service, tmp_path):
    """A client of the documented site of Caddy."""
    if not (program := shutil.which("caddy")):
        pytest.skip("there is no caddy: install caddy")
    port, authority = free_port(), tmp_path / "caddy/pki/authorities/local/root.crt"
    site = (ROOT / "deploy/Caddyfile").read_text().replace("127.0.0.1:8000", service.base_url.netloc.decode())
    site = site.replace("fashionnet.example.org {", f"https://localhost:{port} {{\n\ttls internal\n\tbind 127.0.0.1")
    (tmp_path / "Caddyfile").write_text(CADDY.format(site=site))
    command = [program, "run", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile"]
    folders = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(tmp_path))
    with running(port, *command, env=os.environ | folders):
        wait_until(authority.exists)
        trusting = ssl.create_default_context(cafile=authority)
        transport = httpx.HTTPTransport(verify=trusting, local_address="127.0.0.2")
        with httpx.Client(transport=transport, base_url=f"https://localhost:{port}{PREFIX}") as client:
            wait_until(lambda: is_ready(client))
            yield client


def test_the_documented_caddy_has_tls_and_says_who_its_client_is(caddy, caplog):
    assert caddy.get("/").status_code == 200
    assert caddy.get("/metrics").status_code == 404
    assert caddy.post("/predict", files={"file": grey_png()}).status_code == 200
    assert_problem(caddy.post("/predict", files={"file": TOO_LARGE}), 413, "too-large")
    assert client_in_log(caplog, caddy, "/models", **{"X-Forwarded-For": "6.6.6.6"}) == "127.0.0.2"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd")
def test_the_units_of_systemd_are_valid(tmp_path):
    for unit in (ROOT / "deploy/systemd").iterdir():
        text = unit.read_text().replace("/opt/fashionnet/.venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_answers_without_a_proxy_too(service):
    assert service.get("/health/live").status_code == 200
    assert service.post("/predict", files={"file": grey_png()}).status_code == 200


def client_in_log(caplog, client: httpx.Client, url: str, **headers: str) -> str:
    caplog.clear()
    client.get(url, headers=headers)

    def clients() -> list[str]:
        return [record.client for record in caplog.records if getattr(record, "path", "").endswith("/models")]

    wait_until(lambda: bool(clients()))
    return clients()[0]


def test_a_trusted_proxy_says_who_the_client_is(nginx, trusting, service, caplog):
    _, addresses = nginx
    url, spoofed = addresses["keeps"] + "/models", {"X-Forwarded-For": "6.6.6.6"}
    with httpx.Client(transport=httpx.HTTPTransport(verify=trusting, local_address="127.0.0.2")) as other:
        assert client_in_log(caplog, other, url) == "127.0.0.2"
        assert client_in_log(caplog, other, url, **spoofed) == "127.0.0.2", "nginx knows better"
    assert client_in_log(caplog, service, "/models", **spoofed) == "6.6.6.6"


def test_nobody_else_says_who_the_client_is(service, caplog):
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as other:
        url = str(service.base_url.join("/models"))
        assert client_in_log(caplog, other, url, **{"X-Forwarded-For": "6.6.6.6"}) == "127.0.0.2"


def test_pages_of_the_allowed_origin_may_call_the_service(service):
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    preflight = service.options("/predict", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "x-api-key"
    for body, status in ((grey_png(), 200), (b"", 422)):
        answer = service.post("/predict", files={"file": body}, headers={"Origin": ORIGIN})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    other = service.post("/predict", files={"file": grey_png()}, headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_by_default_no_page_of_another_origin_may_call_the_service(client):
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    assert client.options("/predict", headers=asked).status_code == 405
    assert "access-control-allow-origin" not in client.get("/models", headers={"Origin": ORIGIN}).headers


def test_pages_of_the_allowed_origin_read_rejections(settings, monkeypatch):
    engines = hold_engines(monkeypatch)
    changes = {"cors_origins": ("*",), "queue_size": 1, "inference": "thread"}
    with serve(settings.model_copy(update=changes)) as client, ThreadPoolExecutor() as pool:
        engines[0].hold.set()
        first = pool.submit(client.post, "/predict", files={"file": grey_png()})
        assert engines[0].begun.wait(20)
        answer = client.post("/predict", files={"file": grey_png()}, headers={"Origin": ORIGIN})
        engines[0].gate.set()
        assert first.result().status_code == 200
    assert_problem(answer, 429, "overloaded")
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ROOT_PATH", "fashion"), ("ROOT_PATH", "/fashion/"), ("FORWARDED_ALLOW_IPS", "10.0.0.1/8"),
     ("FORWARDED_ALLOW_IPS", "proxy"), ("CORS_ORIGINS", "https://shop.example/"), ("CORS_ORIGINS", "shop.example")],
)  # fmt: skip
def test_a_value_that_would_have_no_effect_is_refused(monkeypatch, variable, value):
    monkeypatch.setenv(f"FASHIONNET_{variable}", value)
    with pytest.raises(SettingsError, match=f"FASHIONNET_{variable}"):
        read_settings()


def test_several_origins_and_networks_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("FASHIONNET_CORS_ORIGINS", "https://shop.example, http://localhost:3000")
    monkeypatch.setenv("FASHIONNET_FORWARDED_ALLOW_IPS", "127.0.0.1,10.0.0.0/8")
    settings = read_settings()
    assert settings.cors_origins == ("https://shop.example", "http://localhost:3000")
    assert settings.forwarded_allow_ips == ("127.0.0.1", "10.0.0.0/8")


ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "app", *sys.argv[2:]])
"""
"""What systemd's socket activation does."""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_listens_on_a_unix_socket_and_on_those_of_systemd(tmp_path, workers):
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # and not removed
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        process(
            "-c", ACTIVATED, str(listening.fileno()), "--uds", str(path), "--workers", workers,
            pass_fds=[listening.fileno()],
        ) as server,
    ):  # fmt: skip
        with client_of(server) as client, httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as local:
            for one, address in ((client, ""), (local, "http://localhost")):
                answer = one.post(f"{address}/predict", files={"file": grey_png()})
                assert answer.status_code == 200
        server.terminate()
        _, log = server.communicate(timeout=20)
        socket.create_connection(listening.getsockname(), timeout=0.5).close()  # systemd starts the service again
    assert server.returncode == 0, log
    assert str(path) in log


def test_a_unix_socket_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as stack:
        other.bind(str(tmp_path / "used"))
        other.listen()
        busy = fill_backlog(stack, tmp_path / "busy")
        for path in (busy, tmp_path / "used", tmp_path / "file", tmp_path / "nowhere/x", tmp_path / ("long" * 40)):
            with pytest.raises(SystemExit, match=r"cannot listen on the Unix socket .*: stop the program") as end:
                bind(path)
            assert str(path) in str(end.value)
        assert busy.exists()
    assert (tmp_path / "used").exists()


def test_of_two_services_that_start_the_first_keeps_the_unix_socket(tmp_path):
    path = tmp_path / "http.sock"
    with bind(path), pytest.raises(SystemExit, match="Address already in use"):
        bind(path)


def fill_backlog(stack: contextlib.ExitStack, path: Path) -> Path:
    """Returns the path of a socket whose service accepts no connection at the moment."""
    listening = stack.enter_context(socket.socket(socket.AF_UNIX))
    listening.bind(str(path))
    listening.listen(0)
    error = 0
    while not error:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        error = client.connect_ex(str(path))
    assert error == errno.EAGAIN
    return path
