"""The installation: a clone, an image or a package, and the commands that work in it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_data_path

from model.errors import ExtraMissing

ROOT = Path(__file__).parents[1]
"""The folder of the packages ``app`` and ``model``: a clone or site-packages."""
IS_CLONE = (ROOT / "pyproject.toml").is_file()
DATA_DIR = ROOT / "data" if IS_CLONE else user_data_path("fashionnet")
"""The default data folder; it does not depend on the working directory."""


def python_command(name: str = "python") -> str:
    """Returns how to call ``name`` of this interpreter's environment: ``.venv/bin/NAME`` in a clone that has one."""
    folder = Path(sys.executable).parent
    return str(folder.relative_to(ROOT) / name) if IS_CLONE and folder.is_relative_to(ROOT) else name


def download_command() -> str:
    """Returns the command that downloads the data set."""
    if (ROOT / "scripts" / "download.py").is_file():
        return f"{python_command()} scripts/download.py"
    return "fashionnet download"


def install_command(extra: str) -> str:
    """Returns the command that installs an optional dependency group of pyproject.toml."""
    target = f"-e '.[{extra}]'" if IS_CLONE else f"'fashionnet[{extra}]'"
    return f"{python_command('pip')} install {target}"


@contextmanager
def requires_extra(extra: str) -> Iterator[None]:
    """Turns a failed import of an optional package into one sentence.

    Raises:
        ExtraMissing: a package is not installed; the message names the package, the extra and the command.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("app", "model", "scripts"):
            raise
        raise ExtraMissing(
            f"{package} is not installed; install the extra {extra}: {install_command(extra)}"
        ) from error
