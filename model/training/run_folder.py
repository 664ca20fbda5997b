"""The folder of a run: configuration, metrics, curves, and the checkpoints of the last epochs."""

import io
import os
import pickle
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

if sys.platform != "win32":
    import fcntl

from model.errors import TrainingError
from model.files import remove_temporary_files, write_atomically
from model.network import ARCHITECTURES
from model.plots.curves import draw_curves
from model.training.loop import RunConfig, Trainer

KEPT_CHECKPOINTS = 2


class RunFolder:
    """``config.json``, ``metrics.jsonl``, ``curves.png`` and ``checkpoints/epoch-NNNN.pt`` under ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.curves_file = path / "curves.png"
        self.checkpoints = path / "checkpoints"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder, and remove the temporary files of killed ones.

        The lock ends with the process, however that ends. Windows and some network file systems have no such lock.
        Raises TrainingError if another process holds it.
        """
        descriptor = None if sys.platform == "win32" else _lock(self.path)
        try:
            for folder in (self.path, self.checkpoints):
                remove_temporary_files(folder)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def require_empty(self) -> None:
        """Raise TrainingError if the folder contains a run."""
        if self.config_file.exists():
            raise TrainingError(
                f"{self.path} contains a run: continue it by --resume {self.path}, or choose another --out."
            )

    def write_config(self, config: RunConfig) -> None:
        """Write ``config.json``."""
        write_atomically(self.config_file, config.model_dump_json(indent=2).encode() + b"\n")

    def read_config(self) -> RunConfig:
        """Returns the configuration of the run; raises TrainingError if it is missing or damaged."""
        try:
            config = RunConfig.model_validate_json(_read(self.config_file))
        except FileNotFoundError:
            raise TrainingError(f"{self.path} contains no run: start one without --resume.") from None
        except ValidationError as error:
            raise TrainingError(f"{self.config_file} is damaged: start the run again, with another --out.") from error
        if config.recipe.architecture not in ARCHITECTURES:
            raise TrainingError(
                f"{self.config_file} names the architecture {config.recipe.architecture!r}, which this version does "
                "not have: start the run again, with another --out."
            )
        return config

    def save(self, trainer: Trainer) -> None:
        """Write the state after an epoch, then the metrics and the curves."""
        buffer = io.BytesIO()
        torch.save(trainer.state_dict(), buffer)
        write_atomically(self.checkpoints / f"epoch-{trainer.epoch:04d}.pt", buffer.getvalue())
        for outdated in self._checkpoint_files()[:-KEPT_CHECKPOINTS]:
            outdated.unlink()
        self.write_history(trainer)

    def write_history(self, trainer: Trainer) -> None:
        """Write the metrics and the curves of the completed epochs; a process killed after a checkpoint did not."""
        lines = [metrics.model_dump_json() + "\n" for metrics in trainer.history]
        write_atomically(self.metrics_file, "".join(lines).encode())
        write_atomically(self.curves_file, draw_curves(trainer.history))

    def restore(self, trainer: Trainer) -> None:
        """Load the newest checkpoint into ``trainer``, if there is one; raises TrainingError."""
        files = self._checkpoint_files()
        if not files:
            return
        state = _read_checkpoint(files[-1])
        try:
            same = trainer.config.trains_like(RunConfig.model_validate(state["config"]))
            trainer.load_state_dict(state)
        except (KeyError, RuntimeError, TypeError, ValueError):
            raise TrainingError(
                f"{files[-1]} is of another version of FashionNet: start the run again, with another --out."
            ) from None
        if not same:
            raise TrainingError(
                f"{self.config_file} was altered, {files[-1].name} was trained with other values: restore it, or start "
                "the run again, with another --out."
            )

    def saved_epochs(self) -> int:
        """Returns the number of epochs that the newest checkpoint completes."""
        files = self._checkpoint_files()
        return int(files[-1].stem.removeprefix("epoch-")) if files else 0

    def _checkpoint_files(self) -> list[Path]:
        """Returns the checkpoints in the order of their epochs; files of other names are not ours."""
        files = self.checkpoints.glob("epoch-*.pt")
        return sorted(path for path in files if path.stem.removeprefix("epoch-").isdecimal())


def _lock(folder: Path) -> int:
    """Returns the descriptor that holds the lock on ``folder``; raises TrainingError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise TrainingError(
            f"Another process trains in {folder}: wait until it ends, or choose another --out."
        ) from None
    except OSError:
        pass  # a file system without such locks
    return descriptor


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}): let this user read it.") from None


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint; raises TrainingError if it is damaged."""
    content = io.BytesIO(_read(path))
    try:
        _compare_sums(content)
        content.seek(0)
        state: dict[str, Any] = torch.load(content, weights_only=True)
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise TrainingError(f"{path} is damaged: delete it to resume from the checkpoint before it.") from error
    return state


def _compare_sums(content: io.BytesIO) -> None:
    """Raises BadZipFile if an entry of a checkpoint, which is a ZIP archive, does not have its CRC-32.

    ``torch.load`` does not compare these sums. Checkpoints of earlier versions hold them too.
    """
    with zipfile.ZipFile(content) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
