"""Errors that say what is wrong with a data folder and how to repair it.

``folder`` is the folder of the four files, ``<root>/FashionMNIST/raw``.
"""

import errno
import shlex
from pathlib import Path
from typing import TypeVar

from model.errors import DataCorrupt, DataError, DataMissing, DownloadFailed
from model.files import one_line, printable
from model.installation import download_command

Kind = TypeVar("Kind", bound=DataError)
MOST_NAMES = 5
"""Maximum number of file names in a message."""


def problem(kind: type[Kind], sentence: str, folder: Path, **words: object) -> Kind:
    """Returns an error whose sentence has ``{folder}``, ``{download}`` and ``words`` filled in.

    Its ``public`` form, for HTTP responses, names no path of this machine.
    """
    root = shlex.quote(_text(folder.parents[1]))
    words |= {"folder": folder, "download": f"{download_command()} --data-dir {root}"}
    named = {word: _text(value) if isinstance(value, Path) else value for word, value in words.items()}
    public = {
        "folder": "the data folder",
        "download": download_command(),
        "place": "a folder near it",
        "root": "the folder that contains FashionMNIST/raw",
        "listing": "",
    }
    return kind(sentence.format(**named), sentence.format(**named | public))


def missing(folder: Path, name: str) -> DataMissing:
    """The file ``name`` does not exist. The message names common causes that it finds."""
    unpacked, there = name.removesuffix(".gz"), _names(folder)
    if name in there:
        return problem(
            DataMissing, "{name} in {folder} is a broken link: run `{download}` to replace it.", folder, name=name
        )
    if unpacked in there:
        return problem(
            DataMissing,
            "{folder} contains {unpacked}, but {name} is needed: run `{download}` to download the .gz files, "
            "or compress yours there with `gzip -k *-ubyte && sha256sum *.gz > SHA256SUMS`.",
            folder,
            name=name,
            unpacked=unpacked,
        )
    for place in _places_near(folder):
        if {name, unpacked} & set(_names(place)):
            return _in_another_place(folder, place)
    return problem(
        DataMissing,
        "{name} is not in {folder}{listing}: run `{download}` to download Fashion-MNIST, "
        "or set FASHIONNET_DATA_DIR to the folder that contains FashionMNIST/raw.",
        folder,
        name=name,
        listing=_listing(folder, there),
    )


def unreadable(folder: Path, name: str, error: OSError) -> DataError:
    """The file ``name`` exists but cannot be read."""
    remedy = "repair the file or its disk"
    if isinstance(error, PermissionError):
        remedy = "let the user that runs FashionNet read the folder and its files"
    return problem(
        DataError,
        "{name} cannot be read from {folder} ({reason}): {remedy}, or set FASHIONNET_DATA_DIR to another folder.",
        folder,
        name=name,
        reason=error.strerror,
        remedy=remedy,
    )


def altered(folder: Path, name: str, *, published: bool) -> DataCorrupt:
    """The file ``name`` does not match its checksum, the ``published`` one or that in SHA256SUMS."""
    sentence = "{name} in {folder} does not match its checksum in SHA256SUMS: restore the file, "
    if published:
        sentence = "{name} in {folder} does not match its checksum: run `{download}` to replace it, "
    remedy = "or, if you changed the file on purpose, run `sha256sum *.gz > SHA256SUMS` in that folder."
    return problem(DataCorrupt, sentence + remedy, folder, name=name)


def other_file_sent(folder: Path, name: str, url: str, *, published: bool) -> DownloadFailed:
    """The downloaded file does not match its checksum."""
    if published:
        sentence = (
            "The file from {url} is not Fashion-MNIST's {name} and was discarded: try again, "
            "or set FASHIONNET_DATA_URL to another mirror."
        )
    else:
        sentence = (
            "The file from {url} does not match the checksum of {name} in SHA256SUMS in {folder} and was discarded: "
            "set FASHIONNET_DATA_URL to a mirror of that data set, or remove SHA256SUMS to download Fashion-MNIST."
        )
    return problem(DownloadFailed, sentence, folder, name=name, url=url)


def unreachable(folder: Path, url: str) -> DownloadFailed:
    """The mirror does not respond."""
    return problem(
        DownloadFailed,
        "{url} cannot be reached: check the network, set FASHIONNET_DATA_URL to a mirror, "
        "or copy the four .gz files into {folder}.",
        folder,
        url=url,
    )


def unwritable(folder: Path, error: Exception) -> DownloadFailed:
    """A file cannot be written."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        sentence = "The disk of {folder} is full: free 40 MB, or set FASHIONNET_DATA_DIR to another disk."
        return problem(DownloadFailed, sentence, folder)
    causes = (getattr(one, "strerror", None) for one in (error, error.__cause__))  # pooch's own errors have none
    return problem(
        DownloadFailed,
        "{folder} cannot be written or read ({reason}): set FASHIONNET_DATA_DIR to a folder that can.",
        folder,
        reason=next(filter(None, causes), str(error)),
    )


def _places_near(folder: Path) -> tuple[Path, Path, Path]:
    """Returns where the files are if the root is set too deep or if they were copied without their folders."""
    root = folder.parents[1]
    return root, root / "raw", root / "FashionMNIST"


def _in_another_place(folder: Path, place: Path) -> DataMissing:
    sentence = "Fashion-MNIST is not in {folder} but in {place}: move its files into {folder}."
    if place.parts[-2:] == folder.parts[-2:]:
        sentence = "Fashion-MNIST is not in {folder} but in {place}: set FASHIONNET_DATA_DIR to {root}."
    return problem(DataMissing, sentence, folder, place=place, root=place.parent.parent)


def _listing(folder: Path, names: list[str]) -> str:
    if not names:
        return ", which is empty" if folder.is_dir() else ", which does not exist"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", which contains " + ", ".join(_text(name) for name in names[:MOST_NAMES]) + more


def _names(folder: Path) -> list[str]:
    """Returns the file names in the folder; none if it cannot be listed."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _text(path: Path | str) -> str:
    return one_line(printable(path))
