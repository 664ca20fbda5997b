"""File names and atomic writes."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Returns a path with a leading ``~`` expanded to the home folder; ``~name`` stays if there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises an error for ~nobody


def printable(path: str | Path) -> str:
    r"""Returns the path as valid text: a byte that is not UTF-8 becomes ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    r"""Returns the text with control characters escaped: a line feed becomes ``\n``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


TEMPORARY = ".tmp"
"""How the names of temporary files end."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a temporary file in the same folder, flushes it to disk and renames it.

    Readers see the old file or the new one, even after a crash or a power cut. Raises OSError.
    """
    write_all({path: content})


def write_all(files: Mapping[Path, bytes]) -> None:
    """Writes each file as ``write_atomically`` does, but renames none before all are written; raises OSError."""
    written: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
            written[path] = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            written[path].chmod(0o644)
        for path, temporary in written.items():
            temporary.replace(path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: Path, name: str = "") -> None:
    """Deletes what killed processes left of files whose names begin with ``name``; nobody may write them now."""
    for path in folder.glob(f".*{TEMPORARY}"):
        if path.name.startswith(f".{name}"):
            path.unlink(missing_ok=True)
