"""A stand-in for ``docker`` that needs neither its engine nor an image registry: Debian's podman, run as root."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.servers import ROOT

CONF = Path(__file__).with_name("containers.conf")
PROGRAMS = ("podman", "netavark", "runc", "iptables", "mmdebstrap")
PATH = f"{os.environ['PATH']}:/usr/lib/podman"
PIP_FILES = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""What pip needs to reach the package index from this machine."""
DEBIAN = {"python:3.11-slim": "bookworm", "python:3.13-slim": "trixie"}
"""The Debian release whose own Python has the version of the official image."""


def why_not() -> str | None:
    """The reason why containers cannot be run here, or None."""
    if os.geteuid() != 0:
        return "containers need root; run the tests as root"
    if missing := [program for program in PROGRAMS if not shutil.which(program, path=PATH)]:
        return f"{', '.join(missing)} not installed; run: make container"
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode:
        return "root may not make namespaces here; run the tests outside a container"
    return None


def install_docker_shim(folder: Path) -> None:
    """Write an executable ``docker`` into ``folder`` that answers with podman. Makes the base image on first use.

    End ``docker run`` with SIGTERM or SIGINT, which it forwards; after SIGKILL the container runs on.
    """
    shim = folder / "docker"
    shim.write_text(
        f"""#!/bin/sh
export CONTAINERS_CONF={CONF}
command=$1; shift
case $command in
  build) exec podman build {shlex.join(_build_options())} "$@" ;;
  run) exec podman run {shlex.join(RUN_OPTIONS)} "$@" ;;
  *) exec podman "$command" "$@" ;;
esac
"""
    )
    shim.chmod(0o755)


RUN_OPTIONS = ("--rm", "--no-healthcheck")
"""Health checks on a schedule need systemd."""


def _build_options() -> list[str]:
    mounts = [f"--volume={path}:{path}:ro" for path in PIP_FILES if Path(path).exists()]
    return ["--isolation=chroot", "--format=docker", "--pull=never", f"--build-arg=PYTHON={_base_image()}", *mounts]


def _base_image() -> str:
    """The image that the Dockerfile starts from, if it is here, or else a stand-in for it."""
    (official,) = re.findall(r"^ARG PYTHON=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = (f"docker.io/library/{official}", f"localhost/stand-in/{official}")
    for name in names:
        if _podman("image", "exists", name) == 0:
            return name
    _make_stand_in(names[-1], DEBIAN[official])
    return names[-1]


def _make_stand_in(name: str, release: str) -> None:
    python = 'ln -s python3 "$1/usr/bin/python"'
    packages = "--include=python3-venv,ca-certificates,passwd"
    debian = ["mmdebstrap", "--quiet", "--variant=apt", packages, f"--customize-hook={python}", release, "-"]
    with subprocess.Popen(debian, stdout=subprocess.PIPE) as archive:
        assert _podman("import", "--change", 'CMD ["python3"]', "-", name, stdin=archive.stdout) == 0
    assert archive.returncode == 0


def _podman(*arguments: str, stdin: object = None) -> int:
    return subprocess.call(["podman", *arguments], env=os.environ | {"CONTAINERS_CONF": str(CONF)}, stdin=stdin)
