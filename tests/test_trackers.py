import json
import sys

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app.commands import train
from model import FashionMnist
from model.errors import ExtraMissing
from model.training.run import Run
from model.training.trackers import tracking
from tests.training_runs import make_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:sqlalchemy", "ignore:.*noload"),  # of MLflow's own making
]

NAMES = {
    "train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "test/loss", "test/accuracy",
    "learning_rate", "seconds", "images_per_second",
}  # fmt: skip


@pytest.fixture(scope="module")
def tracked(small_data, artifact, tmp_path_factory):
    """An epoch without an export, and another one after --resume, in both trackers; the folder and MLflow's address."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    uri = f"sqlite:///{folder.parent}/mlflow.db"
    common = ["--data-dir", str(small_data.root), "--tracker", "tensorboard", "--tracker", "mlflow"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_ARTIFACT_ROOT", str(folder.parent))
        patch.setattr(Run, "export", lambda *_: artifact.card)
        new = ["--out", str(folder), "--threads", "1", "--epochs", "1", "--no-export"]
        assert train.main([*common, *new]) == 0
        assert train.main([*common, "--resume", str(folder), "--epochs", "2"]) == 0
    return folder, uri


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_shows_every_epoch_and_the_test_set(tracked):
    folder, _ = tracked
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == NAMES
    losses = events.Scalars("validation/loss")
    assert [event.step for event in losses] == [1, 2]
    expected = [metrics["validation_loss"] for metrics in metrics_of(folder)]
    assert [event.value for event in losses] == pytest.approx(expected)


def test_mlflow_shows_one_run_with_its_recipe_and_every_epoch(tracked):
    folder, uri = tracked
    client = MlflowClient(uri)
    (found,) = client.search_runs(["0"])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert (found.data.params["name"], found.data.params["seed"]) == ("baseline", "1")
    assert set(found.data.metrics) == NAMES
    history = client.get_metric_history(found.info.run_id, "train/accuracy")
    expected = [metrics["train_accuracy"] for metrics in metrics_of(folder)]
    assert [entry.value for entry in history] == pytest.approx(expected)
    assert [entry.step for entry in history] == [1, 2]


def test_an_unreachable_mlflow_is_one_sentence_before_the_training(small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    arguments = ["--data-dir", str(small_data.root), "--out", str(tmp_path / "run"), "--threads", "1"]
    assert train.main([*arguments, "--tracker", "mlflow"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: MLflow cannot log this run (")
    assert error.endswith("or leave --tracker mlflow out.")


def test_a_training_goes_on_when_mlflow_fails(small_data, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ARTIFACT_ROOT", str(tmp_path))

    def fail(*_, **__):
        raise MlflowException("the server\nis gone")

    started = Run.start(tmp_path / "run", make_config(small_data, 2, limit=64), small_data)
    with tracking(started, ["mlflow"]) as log:
        monkeypatch.setattr("mlflow.tracking.client.MlflowClient.log_batch", fail)
        for metrics in started.epochs():
            log(metrics.epoch, {"train/loss": metrics.train_loss})
    assert started.trainer.epoch == 2
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning == r"warning: MLflow stops logging this run: the server\nis gone"


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    small_data: FashionMnist, tmp_path, monkeypatch, name, module
):
    monkeypatch.setitem(sys.modules, module, None)
    started = Run.start(tmp_path, make_config(small_data, 1, limit=64), small_data)
    with pytest.raises(ExtraMissing, match=rf"pip install -e '.\[{name}\]'"), tracking(started, [name]):
        pass
