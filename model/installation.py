"""The installation: a clone, an image or a package, and the commands that work in it."""

import shlex
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


def is_in_clone() -> bool:
    """Returns whether the working directory is the folder of the clone, as the documents expect."""
    return IS_CLONE and ROOT.samefile(".")


def _typed(path: Path) -> str:
    """Returns a path in the clone as it is typed here: relative to the clone only if that is the working directory."""
    return shlex.quote(str(path.relative_to(ROOT) if is_in_clone() else path))


def python_command(name: str = "python") -> str:
    """Returns how to call ``name`` of this interpreter's environment: ``.venv/bin/NAME`` in a clone that has one."""
    folder = Path(sys.executable).parent
    return _typed(folder / name) if IS_CLONE and folder.is_relative_to(ROOT) else name


def script(command: str) -> str:
    """Returns what follows ``python`` or ``torchrun`` to run a command: its script in a clone, else the module."""
    path = ROOT / "scripts" / f"{command}.py"
    return _typed(path) if path.is_file() else f"-m app {command}"


def download_command() -> str:
    """Returns the command that downloads the data set."""
    is_clone = (ROOT / "scripts" / "download.py").is_file()
    return f"{python_command()} {script('download')}" if is_clone else "fashionnet download"


def install_command(extra: str) -> str:
    """Returns the command that installs an optional dependency group of pyproject.toml."""
    clone = "." if is_in_clone() else ROOT
    target = f"-e '{clone}[{extra}]'" if IS_CLONE else f"'fashionnet[{extra}]'"
    return f"{python_command('pip')} install {target}"


def serve_command(model_dir: Path) -> str:
    """Returns the command that serves the models in a folder."""
    folder = shlex.quote(str(model_dir))
    if is_in_clone():
        return f"FASHIONNET_MODEL_DIR={folder} make serve"
    return f"{python_command('fashionnet')} --model-dir {folder}"


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
