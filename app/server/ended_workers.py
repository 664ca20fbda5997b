"""The metrics of workers that have ended: their counts go into one file for each type of metric.

Without this, each worker that is replaced leaves five files, which every scrape reads. The module builds on
prometheus_client's ``MmapedDict``, which is not documented. If that is missing, the files stay.
"""

import logging
import os
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from app.metrics_files import merging

try:
    from prometheus_client.mmap_dict import MmapedDict
except ImportError:
    CAN_MERGE = False
else:
    CAN_MERGE = {"close", "read_all_values_from_file", "write_value"} <= set(dir(MmapedDict))

logger = logging.getLogger("fashionnet")
COUNTED = ("counter", "histogram", "summary")
MERGED = "ended"
"""Stands in the name of a file where others have a process identifier."""
ENTRY_BYTES = 32
"""At most what a value takes besides its key."""


def merge_ended(folder: Path, pid: int) -> None:
    """Merges the files of workers that have ended, the last of them ``pid``, and forgets their gauges.

    The files wait for the next worker that ends if they are being read. A file that cannot be merged stays.
    """
    try:
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        with merging(folder):
            for kind in COUNTED if CAN_MERGE else ():
                if files := _files_of_ended(folder, kind):
                    _merge(files, folder / f"{kind}_{MERGED}.db")
    except BlockingIOError:
        pass
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        logger.warning("The metrics of a worker that ended stay in a file of their own: %s", error)


def _files_of_ended(folder: Path, kind: str) -> list[Path]:
    by_pid = {file.stem.rpartition("_")[2]: file for file in folder.glob(f"{kind}_*.db")}
    return [file for pid, file in by_pid.items() if pid.isdigit() and not _is_running(int(pid))]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _merge(ended: Sequence[Path], total: Path) -> None:
    """Adds the values of files to those of ``total``, and removes the files."""
    values: dict[str, float] = defaultdict(float)
    for source in (*ended, *total.parent.glob(total.name)):
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
            values[key] += value
    new, size = total.with_suffix(".new"), sum(len(key.encode()) + ENTRY_BYTES for key in values)
    new.write_bytes(bytes(size + ENTRY_BYTES))  # writing to a mapped file on a full disk would end the master
    written = MmapedDict(str(new))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    new.replace(total)
    for file in ended:
        file.unlink()
