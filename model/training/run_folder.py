"""The folder of a run: configuration, metrics, curves, and the checkpoints of the last epochs."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from model.errors import TrainingError
from model.files import write_atomically
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
            return RunConfig.model_validate_json(self.config_file.read_bytes())
        except FileNotFoundError:
            raise TrainingError(f"{self.path} contains no run: start one without --resume.") from None
        except ValidationError as error:
            raise TrainingError(f"{self.config_file} is damaged: start the run again, with another --out.") from error

    def save(self, trainer: Trainer) -> None:
        """Write the state after an epoch, then the metrics and the curves."""
        buffer = io.BytesIO()
        torch.save(trainer.state_dict(), buffer)
        write_atomically(self.checkpoints / f"epoch-{trainer.epoch:04d}.pt", buffer.getvalue())
        for outdated in self._checkpoint_files()[:-KEPT_CHECKPOINTS]:
            outdated.unlink()
        lines = [metrics.model_dump_json() + "\n" for metrics in trainer.history]
        write_atomically(self.metrics_file, "".join(lines).encode())
        write_atomically(self.curves_file, draw_curves(trainer.history))

    def restore(self, trainer: Trainer) -> None:
        """Load the newest checkpoint into ``trainer``, if there is one; raises TrainingError."""
        files = self._checkpoint_files()
        if not files:
            return
        try:
            trainer.load_state_dict(_read_checkpoint(files[-1]))
        except (KeyError, RuntimeError):
            raise TrainingError(
                f"{files[-1]} is of another version of FashionNet: start the run again, with another --out."
            ) from None

    def _checkpoint_files(self) -> list[Path]:
        return sorted(self.checkpoints.glob("epoch-*.pt"))


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, json.JSONDecodeError) as error:
        raise TrainingError(f"{path} is damaged: delete it to resume from the checkpoint before it.") from error
    return state
