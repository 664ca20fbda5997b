"""The folder in which several workers share their metrics: a file for each process and type of metric.

prometheus_client looks for the folder when it is imported; so nothing here imports prometheus_client.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "fashionnet-metrics-"


def create_folder(parent: Path | None) -> Path:
    """Returns a new folder in ``parent`` (default: the folder for temporary files); raises OSError.

    The process and its children hold a lock on it as long as one of them lives. Folders without a lock, which killed
    services left behind, are removed.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_abandoned(parent)
    hidden = _create_locked(parent)
    return hidden.rename(parent / hidden.name[1:])  # with its lock, so that nobody takes it for abandoned


def restore_folder(folder: Path) -> None:
    """Makes the folder anew, with a lock, if somebody has removed it; raises OSError."""
    if not folder.exists():
        _create_locked(folder.parent).rename(folder)


def _create_locked(parent: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    return folder


def remove_abandoned(parent: Path) -> None:
    """Removes the folders in ``parent`` that no process holds a lock on."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is locked, or belongs to somebody else
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Waits until no files are merged, and prevents that; raises OSError if the folder is gone."""
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def merging(folder: Path) -> Iterator[None]:
    """Prevents that the files are read; raises BlockingIOError, an OSError, if they are being read.

    It does not wait: the reader may be a worker that hangs.
    """
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def process_ids(folder: Path) -> set[int]:
    """Returns the processes that have gauges in the folder: those that run, as the files of others are removed."""
    return {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}
