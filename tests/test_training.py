import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model import (
    Artifact,
    FashionMnist,
    Report,
    cpu,
    create_engine,
    load_artifact,
)
from model.engines import OnnxEngine
from model.errors import ArtifactError, TrainingError
from model.evaluation import Metrics
from model.export import build as export_module
from model.network import create_network, load_network
from model.training.loop import RunConfig, Trainer, choose_precision
from model.training.recipes import RECIPES
from model.training.run import Run
from model.training.run_folder import RunFolder
from scripts import train as command
from tests.servers import ROOT, process, run, wait_until


def make_config(data_set: FashionMnist, epochs: int, **changes) -> RunConfig:
    recipe = RECIPES["baseline"].model_copy(update={"epochs": epochs, "batch_size": 64})
    settings = {"seed": 3, "precision": "fp32", "threads": 1, "device": "cpu", "name": "fashionnet"}
    return RunConfig(recipe=recipe, data=dict(data_set.checksums()), **settings | changes)


def state_of(trainer: Trainer) -> bytes:
    """Weights, optimiser and schedule, bit for bit; not the seconds, which no two runs share."""
    state = trainer.state_dict()
    tensors = {name: tensor.numpy().tobytes() for name, tensor in state["network"].items()}
    moments = {
        (index, name): value.numpy().tobytes()
        for index, values in state["optimizer"]["state"].items()
        for name, value in values.items()
    }
    return repr((tensors, moments, state["optimizer"]["param_groups"], state["scheduler"])).encode()


def finished(run_: Run) -> Run:
    list(run_.epochs())
    return run_


@pytest.fixture(scope="module")
def straight(small_data, tmp_path_factory) -> Run:
    """Four epochs without a break."""
    return finished(Run.start(tmp_path_factory.mktemp("straight"), make_config(small_data, 4), small_data))


def test_the_loss_falls_and_the_network_learns(straight):
    history = straight.trainer.history
    assert [metrics.epoch for metrics in history] == [1, 2, 3, 4]
    assert history[-1].train_loss < history[0].train_loss / 2
    assert history[-1].validation_accuracy > 0.8
    rates = [metrics.learning_rate for metrics in history]
    assert rates == pytest.approx([1e-3 * 0.8**epoch for epoch in range(4)])


def test_two_epochs_and_two_more_are_four_bit_for_bit(straight, small_data, tmp_path):
    finished(Run.start(tmp_path, make_config(small_data, 2), small_data))
    resumed = finished(Run.resume(tmp_path, small_data, epochs=4))
    assert state_of(resumed.trainer) == state_of(straight.trainer)
    assert resumed.folder.read_config().recipe.epochs == 4


def one_cycle(data_set: FashionMnist) -> RunConfig:
    """The deep recipe without its teacher, and FashionNet's layers, which train faster."""
    changes = {"epochs": 4, "architecture": "fashionnet", "learning_rate": 0.05, "batch_size": 64, "distillation": None}
    return make_config(data_set, 4).model_copy(update={"recipe": RECIPES["deep"].model_copy(update=changes)})


@pytest.mark.slow
def test_one_cycle_goes_up_and_down_to_0_by_batches_and_resumes_bit_for_bit(small_data, tmp_path):
    config = one_cycle(small_data)
    whole = finished(Run.start(tmp_path / "whole", config, small_data))
    interrupted = Run.start(tmp_path / "interrupted", config, small_data)
    next(interrupted.epochs())
    resumed = finished(Run.resume(tmp_path / "interrupted", small_data))
    assert state_of(resumed.trainer) == state_of(whole.trainer)
    rates = [metrics.learning_rate for metrics in whole.trainer.history]
    assert rates[0] == pytest.approx(0.05 / 25)
    assert rates[1] > rates[2] > 0.005
    assert whole.trainer.history[-1].validation_accuracy > 0.5, "augmented images teach too"


def test_the_epochs_of_a_cycle_cannot_be_changed_on_the_way(small_data, tmp_path):
    next(Run.start(tmp_path, one_cycle(small_data), small_data).epochs())
    with pytest.raises(TrainingError, match="ends at 0 after 4 epochs"):
        Run.resume(tmp_path, small_data, epochs=5)
    assert Run.resume(tmp_path, small_data, epochs=4).trainer.epoch == 1


@pytest.mark.slow
def test_a_deep_network_is_released_like_the_other(small_data, tmp_path):
    recipe = RECIPES["deep"].model_copy(update={"epochs": 1, "distillation": None})
    config = make_config(small_data, 1, name="fashionnet-deep", limit=128).model_copy(update={"recipe": recipe})
    card = finished(Run.start(tmp_path, config, small_data)).release(tmp_path)
    assert card.architecture == "fashionnet-deep"
    assert "residual" in card.description
    images = small_data.load("test").images[:20]
    logits = [
        create_engine(name, load_artifact(tmp_path, "fashionnet-deep")).run(images).logits for name in ("onnx", "torch")
    ]
    np.testing.assert_allclose(*logits, atol=1e-4)


def test_cycles_end_and_begin_at_restarts():
    recipe = RECIPES["photo"].model_copy(update={"epochs": 6, "restarts": (2, 5)})
    assert [recipe.cycle(epoch) for epoch in range(1, 7)] == [(0, 2)] * 2 + [(2, 5)] * 3 + [(5, 6)]
    assert recipe.model_copy(update={"epochs": 1}).cycle(1) == (0, 1), "a run may be cut short of its restarts"


def test_a_run_that_began_before_there_were_snapshots_goes_on(small_data, tmp_path):
    run_ = Run.start(tmp_path, make_config(small_data, 2, limit=64), small_data)
    next(run_.epochs())
    earlier = {name: value for name, value in run_.trainer.state_dict().items() if name != "snapshots"}
    torch.save(earlier, tmp_path / "checkpoints" / "epoch-0001.pt")
    assert finished(Run.resume(tmp_path, small_data)).trainer.epoch == 2


def snapshots(data_set: FashionMnist) -> RunConfig:
    """The recipe of several cycles, three epochs of few images, beginning anew after the second."""
    recipe = RECIPES["photo"].model_copy(update={"epochs": 3, "restarts": (2,), "batch_size": 8, "warm_up": 0.3})
    config = make_config(data_set, 3, name="fashionnet-photo", limit=64)
    return config.model_copy(update={"recipe": recipe})


@pytest.mark.parametrize("interrupted_after", [1, 2])
def test_a_run_with_a_restart_resumes_bit_for_bit(small_data, tmp_path, interrupted_after):
    whole = finished(Run.start(tmp_path / "whole", snapshots(small_data), small_data))
    epochs = Run.start(tmp_path / "interrupted", snapshots(small_data), small_data).epochs()
    for _ in range(interrupted_after):
        next(epochs)
    resumed = finished(Run.resume(tmp_path / "interrupted", small_data))
    assert state_of(resumed.trainer) == state_of(whole.trainer)
    for name, tensor in whole.trainer.snapshots[0].items():
        assert torch.equal(tensor, resumed.trainer.snapshots[0][name]), name
    rates = [metrics.learning_rate for metrics in whole.trainer.history]
    assert rates[0] == pytest.approx(rates[2])
    assert rates[1] > rates[0]


@pytest.mark.slow
def test_what_was_reached_at_a_restart_is_a_member_of_the_released_network(small_data, tmp_path):
    run_ = Run.start(tmp_path, snapshots(small_data), small_data)
    epochs = run_.epochs()
    next(epochs)
    next(epochs)
    reached = {name: tensor.clone() for name, tensor in run_.trainer.network.state_dict().items()}
    next(epochs)
    card = run_.release(tmp_path)
    assert (card.members, card.architecture) == (2, "fashionnet-photo")
    assert card.description.startswith("2 networks whose logits are averaged, each: ")
    artifact = load_artifact(tmp_path, "fashionnet-photo")
    network = load_network(artifact)
    assert card.parameters == sum(parameter.numel() for parameter in network.parameters())
    for name, tensor in reached.items():
        assert torch.equal(tensor, network.state_dict()[f"members.0.{name}"]), name
    images = small_data.load("test").images[:20].copy()
    with torch.inference_mode():
        alone = [member.outputs(torch.from_numpy(images)) for member in network.members]
    for engine in (create_engine(name, artifact) for name in ("onnx", "torch")):
        found = engine.run(images)
        np.testing.assert_allclose(found.logits, (alone[0].logits + alone[1].logits).numpy() / 2, atol=1e-4)
        np.testing.assert_allclose(found.features, torch.cat([one.features for one in alone], 1).numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_graph_in_8_bits_that_loses_accuracy_is_not_released(straight, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "INT8_LOSS", -1.0)
    card = straight.release(tmp_path)
    assert set(card.files) == {"safetensors", "onnx", "detector.safetensors"}
    assert card.int8_metrics == {}
    assert create_engine("auto", load_artifact(tmp_path, "fashionnet")).name == "onnx"


def test_another_seed_gives_other_weights(straight, small_data, tmp_path):
    other = finished(Run.start(tmp_path, make_config(small_data, 4, seed=4), small_data))
    assert state_of(other.trainer) != state_of(straight.trainer)


def test_a_run_folder_holds_configuration_metrics_curves_and_checkpoints(straight):
    folder = straight.folder
    assert folder.read_config() == straight.config
    lines = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert folder.curves_file.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["epoch-0003.pt", "epoch-0004.pt"]


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_bit_for_bit(straight, small_data, tmp_path):
    RunFolder(tmp_path).write_config(make_config(small_data, 4))
    resume = ["scripts/train.py", "--resume", str(tmp_path), "--data-dir", str(small_data.root)]
    with process(*resume) as child:
        wait_until((tmp_path / "checkpoints" / "epoch-0001.pt").exists, 60)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (tmp_path / "fashionnet.json").exists(), "killed before its end"
    resumed = Run.resume(tmp_path, small_data)
    assert 1 <= resumed.trainer.epoch < 4
    assert state_of(finished(resumed).trainer) == state_of(straight.trainer)


def test_a_run_with_no_completed_epoch_resumes_at_the_beginning(straight, small_data, tmp_path):
    Run.start(tmp_path, make_config(small_data, 4), small_data)
    assert state_of(finished(Run.resume(tmp_path, small_data)).trainer) == state_of(straight.trainer)


@pytest.mark.slow
def test_the_released_artefact_is_the_trained_network(straight, small_data, tmp_path):
    card = straight.release(tmp_path, tmp_path / "again")
    artifact = load_artifact(tmp_path, "fashionnet")
    assert artifact == load_artifact(tmp_path / "again", "fashionnet")
    assert card.metrics["test"].accuracy > 0.9
    assert [type(figures["test"]) for figures in (card.metrics, card.int8_metrics)] == [Report, Report]
    assert type(card.metrics["validation"]) is Metrics
    assert card.training["epochs"] == 4
    images = small_data.load("test").images[:20]
    with torch.inference_mode():
        expected = straight.trainer.network.outputs(torch.from_numpy(images.copy()))
    outputs = create_engine("onnx", artifact).run(images)
    assert np.abs(outputs.logits - expected.logits.numpy()).max() < 1e-4
    assert np.abs(outputs.features - expected.features.numpy()).max() < 1e-4


@pytest.mark.slow
def test_the_released_graph_tells_nothing_of_the_machine_it_was_made_on(straight, tmp_path, artifact):
    straight.release(tmp_path)
    for content in ((tmp_path / "fashionnet.onnx").read_bytes(), artifact.content["onnx"]):
        assert b".py" not in content
        assert b"site-packages" not in content


def test_a_graph_that_differs_from_the_network_is_not_released(straight, monkeypatch, tmp_path):
    monkeypatch.setattr(export_module, "PARITY", -1.0)
    monkeypatch.setattr(export_module, "ROUNDING", -1.0)
    with pytest.raises(ArtifactError, match="differ from the network's"):
        straight.release(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("wrong", "released"), [(1, True), (1.001, False)])
def test_huge_logits_may_differ_by_their_rounding_and_no_more(artifact, wrong, released):
    torch.manual_seed(0)
    network = create_network("fashionnet-deep").eval()
    network.fc.weight.data *= 1e6
    bare = Artifact(artifact.card.model_copy(update={"files": {}}), {"onnx": export_module.export_onnx(network)})
    network.fc.weight.data *= wrong
    with contextlib.nullcontext() if released else pytest.raises(ArtifactError, match="differ"):
        export_module._check_parity(network, OnnxEngine(bare, 1))


def test_a_folder_that_holds_a_run_is_not_overwritten(straight, small_data):
    with pytest.raises(TrainingError, match="--resume"):
        Run.start(straight.folder.path, make_config(small_data, 1), small_data)


def test_there_must_be_a_run_to_resume(small_data, tmp_path):
    with pytest.raises(TrainingError, match="without --resume"):
        Run.resume(tmp_path, small_data)


def test_a_damaged_configuration_is_named(small_data, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config.json is damaged"):
        Run.resume(tmp_path, small_data)


def test_a_run_does_not_go_on_with_other_data(straight, fresh_data):
    with pytest.raises(TrainingError, match="another data set"):
        Run.resume(straight.folder.path, fresh_data)


@pytest.mark.parametrize("keep", [0, 2, 10_000])
def test_a_damaged_checkpoint_is_named(small_data, tmp_path, keep):
    run_ = finished(Run.start(tmp_path, make_config(small_data, 1, limit=64), small_data))
    checkpoint = run_.folder.checkpoints / "epoch-0001.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(TrainingError, match=r"epoch-0001.pt is damaged: delete it"):
        Run.resume(tmp_path, small_data)


def test_a_loss_that_is_no_number_ends_the_run(small_data, tmp_path):
    config = make_config(small_data, 1)
    hot = config.recipe.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match="lower learning rate"):
        finished(Run.start(tmp_path, config.model_copy(update={"recipe": hot}), small_data))


@pytest.mark.slow
def test_bf16_learns_too(small_data, tmp_path):
    run_ = finished(Run.start(tmp_path, make_config(small_data, 2, precision="bf16", limit=256), small_data))
    assert run_.trainer.history[-1].train_loss < run_.trainer.history[0].train_loss


@pytest.mark.parametrize(
    ("asked", "device", "bf16", "expected"),
    [
        ("auto", "cpu", False, "fp32"), ("auto", "cpu", True, "bf16"), ("auto", "cuda", False, "bf16"),
        ("fp32", "cpu", True, "fp32"), ("bf16", "cpu", False, "bf16"),
    ],
)  # fmt: skip
def test_precision_follows_the_flags_of_the_cpu(monkeypatch, asked, device, bf16, expected):
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx2"} | ({"avx512_bf16"} if bf16 else set())))
    assert choose_precision(asked, device) == expected


def train(small_data: FashionMnist, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("scripts/train.py", "--data-dir", str(small_data.root), *arguments)


@pytest.mark.slow
def test_the_script_trains_reports_and_releases(small_data, tmp_path):
    out, release = tmp_path / "run", tmp_path / "release"
    done = train(small_data, "--epochs", "2", "--out", str(out), "--release", str(release), "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: --release is called --publish-to now; the next version rejects --release.")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("recipe baseline, seed 1: 2 epochs of 576 images on cpu")
    assert "epoch 2/2" in lines[2]
    assert "validation loss" in lines[2]
    assert "images/s" in lines[2]
    assert lines[3].startswith("test accuracy")
    assert load_artifact(release, "mine") == load_artifact(out, "mine")


@pytest.fixture
def train_here(small_data, monkeypatch) -> Callable[..., int]:
    """``scripts/train.py`` on the small data, in this process; returns the exit status."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return lambda *arguments: command.main(["--data-dir", str(small_data.root), "--threads", "1", *map(str, arguments)])


def test_without_export_a_run_keeps_its_epochs_and_says_how_to_export(train_here, tmp_path, capsys):
    assert train_here("--epochs", 1, "--out", tmp_path, "--no-export") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [
        "Every epoch is saved. Export the model by:", f"  python scripts/train.py --resume {tmp_path}"
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints", "config.json", "curves.png", "metrics.jsonl"
    ]  # fmt: skip
    assert train_here("--resume", tmp_path) == 0
    assert "1 epochs, 1 of them done" in capsys.readouterr().out
    assert load_artifact(tmp_path, "fashionnet").card.training["epochs"] == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [("--recipe seed", "--recipe baseline"), ("--log=mlflow", "--tracker=mlflow"), ("--release m", "--publish-to m"),
     ("--parents-dir m", "--teacher-dir m")],
)  # fmt: skip
def test_old_names_work_for_one_version_with_a_warning(capsys, old, new):
    assert command.parse_arguments(old.split()) == command.parse_arguments(new.split())
    (warning,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"warning: (the recipe )?\S+ is called \S+ now; the next version rejects \S+\.", warning)
    assert command.parse_arguments(["--recipe", "seed"]).out == Path("runs/baseline-1")


def test_a_run_that_began_with_the_recipe_seed_resumes(small_data, tmp_path):
    """Version 0.1 writes this name into config.json and checkpoints."""
    run_ = Run.start(tmp_path, make_config(small_data, 2, limit=64), small_data)
    next(run_.epochs())
    config = json.loads(run_.folder.config_file.read_text())
    config["recipe"]["name"] = "seed"
    run_.folder.config_file.write_text(json.dumps(config))
    assert finished(Run.resume(tmp_path, small_data)).trainer.epoch == 2


@pytest.mark.slow
def test_a_target_that_is_missed_is_exit_status_1(small_data, tmp_path):
    done = train(small_data, "--epochs", "1", "--out", str(tmp_path), "--target-accuracy", "1")
    assert done.returncode == 1
    assert "below the target 100.00%" in done.stderr


@pytest.mark.slow
def test_a_dry_run_keeps_nothing(small_data):
    before = sorted(ROOT.glob("runs/*"))
    done = train(small_data, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing was kept" in done.stdout
    assert sorted(ROOT.glob("runs/*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_cleanly_and_says_how_to_resume(small_data, tmp_path, stop):
    with process(
        "scripts/train.py", "--data-dir", str(small_data.root), "--epochs", "500", "--out", str(tmp_path)
    ) as child:
        wait_until(lambda: any(tmp_path.glob("checkpoints/*")), 60)
        child.send_signal(stop)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert f"python scripts/train.py --resume {tmp_path}" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data-dir", "/proc/nowhere"], "cannot be written or read"),
        (["--resume", "/proc/nowhere"], "holds no run"),
        (["--epochs", "0"], "at least 1"),
        (["--epochs", "-3"], "at least 1"),
        (["--threads", "0"], "at least 1"),
        pytest.param(
            ["--device", "cuda"], "no GPU here", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
        ),
        (["--no-export", "--publish-to", "models"], "need the export"),
        (["--no-export", "--target-accuracy", "0.9"], "need the export"),
        (["--target-accuracy", "92.5"], "a fraction between 0 and 1"),
        (["--recipe", "nonsense"], "There is no recipe nonsense; choose one of baseline"),
        (["--recipe", "deep"], "needs fashionnet-teacher, not to be found in"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(small_data, capsys, arguments, sentence):
    handler = signal.getsignal(signal.SIGTERM)  # a training sets its own
    try:
        status = command.main(["--data-dir", str(small_data.root), *arguments])
    except SystemExit as refusal:  # argparse's
        status = refusal.code
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert status == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_the_progress_bar_shows_loss_accuracy_learning_rate_and_speed(small_data, tmp_path):
    """On a terminal; a log file gets a line an epoch instead."""
    command = [sys.executable, "scripts/train.py", "--epochs", "1", "--out", str(tmp_path / "run")]
    command += ["--data-dir", str(small_data.root)]
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 160))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=child) as running:
        os.close(child)
        seen = b"".join(iter(partial(_read, parent), b""))
        assert running.wait() == 0
    assert b"torchvision" not in seen, "the exporter's words are of no use to anybody here"
    for part in (b"epoch 1/1", b"loss ", b"accuracy ", b"lr 0.001", b"images/s"):
        assert part in seen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # the other side is closed
        return b""


def test_usable_cores_keep_to_the_quota_of_the_container(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    real = Path.read_text

    def quota(text):
        monkeypatch.setattr(Path, "read_text", lambda path: text if path.name == "cpu.max" else real(path))
        return cpu.usable_cores()

    assert quota("max 100000") == 8
    assert quota("150000 100000") == 1
    assert quota("400000 100000") == 4
    assert quota("nonsense") == 8
