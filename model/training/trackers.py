"""Experiment trackers: TensorBoard and MLflow, each with an extra of its name."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from model.artifact import ModelCard
from model.errors import TrainingError
from model.files import one_line, write_atomically
from model.installation import requires_extra
from model.training.loop import EpochMetrics
from model.training.run import Run

logger = logging.getLogger(__name__)  # without a configuration, warnings go to stderr as they are
Log = Callable[[int, dict[str, float]], object]
"""Logs an epoch's figures, by name."""


@contextmanager
def tracking(run: Run, names: Sequence[str]) -> Iterator[Log]:
    """Yields a function that logs ``run`` in the trackers with these ``names``.

    Raises:
        ExtraMissing: a tracker's extra is not installed.
    """
    with ExitStack() as stack:
        logs = [stack.enter_context(TRACKERS[name](run)) for name in dict.fromkeys(names)]

        def log(epoch: int, figures: dict[str, float]) -> None:
            for each in logs:
                each(epoch, figures)

        yield log


@contextmanager
def tensorboard(run: Run) -> Iterator[Log]:
    """Write event files into the run's folder; ``tensorboard --logdir runs`` shows all runs."""
    with requires_extra("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.folder.path / "tensorboard"), purge_step=run.trainer.epoch + 1) as writer:

        def log(epoch: int, figures: dict[str, float]) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        yield log


@contextmanager
def mlflow(run: Run) -> Iterator[Log]:
    """Log to MLflow, where its setting ``MLFLOW_TRACKING_URI`` says; a resumed run continues its MLflow run.

    An error of MLflow while the run trains is printed, and nothing more is logged.

    Raises:
        TrainingError: the MLflow run can be neither started nor continued.
    """
    with requires_extra("mlflow"):
        from mlflow import end_run, log_metrics, log_params, start_run
        from mlflow.exceptions import MlflowException

    note, working, status = run.folder.path / "mlflow-run-id", True, "FAILED"
    try:
        is_new = not note.exists()
        write_atomically(note, start_run(_read(note), run_name=run.folder.path.name).info.run_id.encode())
        if is_new:
            log_params(_parameters(run))
    except MlflowException as error:
        raise TrainingError(
            f"MLflow cannot log this run ({one_line(str(error))}): correct MLFLOW_TRACKING_URI, delete {note} to begin "
            "another MLflow run, or leave --tracker mlflow out."
        ) from error

    def call(function: Callable[..., object], *arguments: object) -> None:
        nonlocal working
        try:
            if working:
                function(*arguments)
        except MlflowException as error:
            working = False
            logger.warning("warning: MLflow stops logging this run: %s", one_line(str(error)))

    try:
        yield lambda epoch, figures: call(log_metrics, figures, epoch)
        status = "FINISHED"
    finally:
        call(end_run, status)


TRACKERS: dict[str, Callable[[Run], AbstractContextManager[Log]]] = {"tensorboard": tensorboard, "mlflow": mlflow}


def figures_of_epoch(metrics: EpochMetrics) -> dict[str, float]:
    """Returns an epoch's figures under names such as train/loss, which trackers group."""
    values = metrics.model_dump(exclude={"epoch"})
    return {
        name.replace("train_", "train/").replace("validation_", "validation/"): value for name, value in values.items()
    }


def figures_of_card(card: ModelCard) -> dict[str, float]:
    """Returns the test figures of the exported network."""
    test = card.metrics["test"]
    return {"test/accuracy": test.accuracy, "test/loss": test.loss}


def _parameters(run: Run) -> dict[str, object]:
    config = run.config
    recipe = {name: value for name, value in config.recipe.model_dump().items() if value is not None}
    return recipe | config.model_dump(include={"seed", "precision", "threads", "processes", "device"})


def _read(note: Path) -> str | None:
    return note.read_text() if note.exists() else None
