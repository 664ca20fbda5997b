"""The service behind real proxies: under a path of theirs that they strip or keep, with TLS, and for whom they say."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx
import pytest

from tests.pictures import grey_png
from tests.servers import ROOT, serve, wait_until

PREFIX = "/fashion"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
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
    with serve(settings.model_copy(update={"root_path": PREFIX})) as client:
        yield client


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


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
def nginx(service, tmp_path_factory):
    """The addresses of the documented site, which has TLS and keeps the path, and of one that strips it."""
    if not NGINX:
        pytest.skip("there is no nginx: install nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-nodes"]
    files = ["-newkey", "rsa:2048", "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run(["openssl", "req", "-x509", *files, *subject], check=True, capture_output=True)
    keeps, strips = free_port(), free_port()
    site = (ROOT / "deploy/nginx.conf").read_text()
    for old, new in {
        "127.0.0.1:8000": service.base_url.netloc.decode(),
        "listen 443": f"listen 127.0.0.1:{keeps}",
        "/etc/ssl/certs/fashionnet.pem": f"{folder}/certificate.pem",
        "/etc/ssl/private/fashionnet.key": f"{folder}/key.pem",
    }.items():
        assert old in site
        site = site.replace(old, new)
    (folder / "conf").write_text(MAIN.format(folder=folder, site=site, strips=strips, prefix=PREFIX))
    with running(keeps, NGINX, "-p", folder, "-c", folder / "conf", "-e", folder / "error.log"):
        trusted = ssl.create_default_context(cafile=folder / "certificate.pem")
        with httpx.Client(verify=trusted, follow_redirects=True, timeout=60) as client:
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


def test_problems_and_metrics_do_not_depend_on_the_path(proxied, service):
    client, address = proxied
    problem = client.post(f"{address}/v2/models/unknown/infer", json={"inputs": []})
    assert problem.status_code == 404
    assert problem.json()["error"] == problem.json()["detail"], "clients of the Open Inference Protocol read error"
    client.post(f"{address}/predict", files={"file": grey_png()})
    metrics = service.get("/metrics").text
    assert 'route="/predict",status="200"' in metrics
    assert f'route="{PREFIX}' not in metrics


def test_the_service_answers_without_a_proxy_too(service):
    assert service.get("/health/live").status_code == 200
    assert service.post("/predict", files={"file": grey_png()}).status_code == 200
