"""Files: their names, and writing them so that they are either whole or absent."""

import os
import tempfile
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """The path that a user wrote: a leading ``~`` is the home folder; ``~nobody``, who is no user, stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises an error for ~nobody


def printable(path: str | Path) -> str:
    r"""The path as text that can be written anywhere: a byte that is not UTF-8 becomes ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    r"""The text with its control characters escaped: a line feed becomes ``\n``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk and rename it into place.

    A reader sees the old file or the new one, also after a crash or a power cut. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
