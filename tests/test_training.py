import contextlib
import errno
import io
import itertools
import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
import torch

from app.commands import train as command
from model import (
    WEIGHTS,
    Artifact,
    FashionMnist,
    Report,
    cpu,
    create_engine,
    load_artifact,
)
from model.artifact import read_card
from model.errors import ArtifactError, TrainingError
from model.evaluation import Metrics
from model.export import build as export_module
from model.installation import script
from model.network import create_network
from model.ood.score import load_score
from model.training.loop import RunConfig, choose_precision
from model.training.run import Run, resume_command
from model.training.run_folder import RunFolder
from tests.servers import ROOT, process, run, wait_until
from tests.training_runs import changed, finished, make_config, state_of


def test_the_loss_falls_and_the_network_learns(trained):
    history = trained.trainer.history
    assert [metrics.epoch for metrics in history] == [1, 2, 3, 4]
    assert history[-1].train_loss < history[0].train_loss / 2
    assert history[-1].validation_accuracy > 0.8
    rates = [metrics.learning_rate for metrics in history]
    assert rates == pytest.approx([1e-3 * 0.8**epoch for epoch in range(4)])


def interrupted(run_: Run, path: Path) -> Path:
    """A copy of the run's folder as it was before the last epoch."""
    shutil.copytree(run_.folder.path, path)
    sorted(path.glob("checkpoints/*"))[-1].unlink()
    return path


def test_three_epochs_and_one_more_are_four_bit_for_bit(trained, small_data, tmp_path):
    folder = RunFolder(interrupted(trained, tmp_path / "run"))
    folder.write_config(make_config(small_data, 3))
    resumed = finished(Run.resume(folder.path, small_data, epochs=4))
    assert state_of(resumed.trainer) == state_of(trained.trainer)
    assert folder.read_config().recipe.epochs == 4


def one_cycle(data_set: FashionMnist, limit: int | None = None) -> RunConfig:
    """The recipe ``deep`` without its teacher, with the layers of FashionNet, which train faster."""
    recipe = changed("deep", architecture="fashionnet", learning_rate=0.05, batch_size=64, distillation=None)
    return make_config(data_set, 4, recipe, limit=limit)


def test_one_cycle_changes_the_rate_by_batches_and_resumes_bit_for_bit(small_data, tmp_path):
    config = one_cycle(small_data)
    whole = finished(Run.start(tmp_path / "whole", config, small_data))
    resumed = finished(Run.resume(interrupted(whole, tmp_path / "interrupted"), small_data))
    assert state_of(resumed.trainer) == state_of(whole.trainer)
    rates = [metrics.learning_rate for metrics in whole.trainer.history]
    assert rates[0] == pytest.approx(0.05 / 25)
    assert rates[1] > rates[2] > 0.005
    assert whole.trainer.history[-1].validation_accuracy > 0.5, "the network learns from augmented and mixed images"


def test_the_number_of_epochs_of_a_cycle_is_fixed(small_data, tmp_path):
    next(Run.start(tmp_path, one_cycle(small_data, limit=64), small_data).epochs())
    with pytest.raises(TrainingError, match="ends at 0 after 4 epochs"):
        Run.resume(tmp_path, small_data, epochs=5)
    assert Run.resume(tmp_path, small_data, epochs=4).trainer.epoch == 1


def test_cycles_end_and_start_at_restarts():
    recipe = changed("residual", epochs=6, restarts=(2, 5))
    assert [recipe.cycle(epoch) for epoch in range(1, 7)] == [(0, 2)] * 2 + [(2, 5)] * 3 + [(5, 6)]
    assert recipe.model_copy(update={"epochs": 1}).cycle(1) == (0, 1), "a run may end before its restarts"


def snapshots(data_set: FashionMnist) -> RunConfig:
    """The recipe of several cycles with three epochs of few images and a restart after the second."""
    recipe = changed("residual", restarts=(2,), batch_size=8, warm_up=0.3, architecture="fashionnet-normalised")
    return make_config(data_set, 3, recipe, limit=64)


def test_a_run_with_a_restart_resumes_bit_for_bit(small_data, tmp_path):
    whole = Run.start(tmp_path / "run", snapshots(small_data), small_data)
    for metrics in whole.epochs():
        shutil.copytree(whole.folder.path, tmp_path / f"after {metrics.epoch}")
    for path in (tmp_path / "after 1", tmp_path / "after 2"):
        resumed = finished(Run.resume(path, small_data))
        assert state_of(resumed.trainer) == state_of(whole.trainer)
        for name, tensor in whole.trainer.snapshots[0].items():
            assert torch.equal(tensor, resumed.trainer.snapshots[0][name]), name
    rates = [metrics.learning_rate for metrics in whole.trainer.history]
    assert rates[0] == pytest.approx(rates[2])
    assert rates[1] > rates[0]


def test_the_network_at_a_restart_becomes_a_member_of_the_exported_one(small_data, tmp_path):
    run_ = Run.start(tmp_path, snapshots(small_data), small_data)
    epochs = run_.epochs()
    next(epochs)
    next(epochs)
    at_restart = run_.trainer.network_to_export()
    next(epochs)
    network = run_.trainer.network_to_export()
    assert len(network.members) == 2
    for name, tensor in at_restart.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[f"members.0.{name}"]), name
    card = export_module.describe(network, run_.trainer)
    assert (card.members, card.architecture) == (2, "fashionnet")
    assert card.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.slow
def test_a_graph_in_8_bits_that_loses_accuracy_is_not_exported(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "MAX_INT8_LOSS", -1.0)
    card = trained.export(tmp_path)
    assert set(card.files) == {"safetensors", "onnx", "detector.safetensors"}
    assert card.int8_metrics == {}
    assert create_engine("auto", load_artifact(tmp_path, "fashionnet")).name == "onnx"


def test_another_seed_gives_other_weights(small_data, tmp_path):
    one, other = (Run.start(tmp_path / str(seed), make_config(small_data, 1, seed=seed), small_data) for seed in (3, 4))
    assert state_of(one.trainer) != state_of(other.trainer)


def test_a_run_folder_holds_configuration_metrics_curves_and_checkpoints(trained):
    folder = trained.folder
    assert folder.read_config() == trained.config
    lines = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert folder.curves_file.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["epoch-0003.pt", "epoch-0004.pt"]


@pytest.fixture(scope="module")
def forked() -> ForkServerContext:
    """Starts processes that have already imported PyTorch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["app.commands.train", "model.training.command"])
    return context


def figures_of(metrics_file: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl`` without times."""
    lines = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    return [{name: line[name] for name in line if name not in ("seconds", "images_per_second")} for line in lines]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_a_run_killed_at_three_random_moments_resumes_bit_for_bit(small_data, tmp_path, forked, seed):
    config, folder = make_config(small_data, 4, limit=64), RunFolder(tmp_path / "killed")
    begin = time.monotonic()
    whole = finished(Run.start(tmp_path / "whole", config, small_data))
    seconds = time.monotonic() - begin
    folder.write_config(config)
    resume = ["--resume", str(folder.path), "--data-dir", str(small_data.root), "--no-export"]
    for moment in np.random.default_rng(seed).uniform(0, seconds, 3):
        child = forked.Process(target=command.main, args=(resume,))
        child.start()
        child.join(moment)
        child.kill()
        child.join()
    with folder.locked():
        resumed = finished(Run.resume(folder.path, small_data))
    assert state_of(resumed.trainer) == state_of(whole.trainer)
    assert figures_of(folder.metrics_file) == figures_of(whole.folder.metrics_file)
    assert not list(folder.path.rglob("*.tmp"))


def described(folder: Path) -> dict[str, object]:
    """The card of an exported run, without what depends on time."""
    card = read_card(folder, "fashionnet").model_dump(exclude={"history": True, "training": {"seconds", "date"}})
    return card | {"content": load_artifact(folder, "fashionnet").content}


@pytest.mark.slow
def test_an_export_that_is_killed_is_repeated_bit_for_bit(exported_run, trained, small_data, tmp_path):
    shutil.copytree(trained.folder.path, tmp_path, dirs_exist_ok=True)
    resume = ["scripts/train.py", "--resume", str(tmp_path), "--data-dir", str(small_data.root)]
    rng = np.random.default_rng(0)
    for _ in range(3):
        with process(*resume) as child:
            child.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=rng.uniform(1, 15))
            child.kill()
    assert run(*resume).returncode == 0
    assert described(tmp_path) == described(exported_run)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("lost", ["last line", "files"])
def test_metrics_and_curves_that_a_kill_left_old_are_written_at_resume(trained, small_data, tmp_path, lost):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(trained.folder.path, folder.path)
    folder.curves_file.unlink()
    if lost == "files":
        folder.metrics_file.unlink()
    else:
        folder.metrics_file.write_text("".join(folder.metrics_file.read_text().splitlines(keepends=True)[:-1]))
    Run.resume(folder.path, small_data)
    assert folder.metrics_file.read_text() == trained.folder.metrics_file.read_text()
    assert folder.curves_file.read_bytes() == trained.folder.curves_file.read_bytes()


def test_a_run_with_no_completed_epoch_resumes_at_the_beginning(small_data, tmp_path):
    started = Run.start(tmp_path, make_config(small_data, 1, limit=128), small_data)
    resumed = finished(Run.resume(tmp_path, small_data))
    assert state_of(resumed.trainer) == state_of(finished(started).trainer)


def test_the_exported_artefact_is_the_trained_network(exported_run, small_data):
    artifact = load_artifact(exported_run, "fashionnet")
    card = artifact.card
    assert card.metrics["test"].accuracy > 0.9
    assert [type(figures["test"]) for figures in (card.metrics, card.int8_metrics)] == [Report, Report]
    assert type(card.metrics["validation"]) is Metrics
    assert card.training["epochs"] == 4
    images = small_data.load("test").images[:20]
    run_ = Run.resume(exported_run, small_data)
    with torch.inference_mode():
        expected = run_.trainer.network.eval().outputs(torch.from_numpy(images.copy()))
    outputs = create_engine("onnx", artifact).run(images)
    assert np.abs(outputs.logits - expected.logits.numpy()).max() < 1e-4
    assert np.abs(outputs.features - expected.features.numpy()).max() < 1e-4


def test_exported_graphs_contain_no_paths_of_the_machine(exported_run, artifact):
    for content in ((exported_run / "fashionnet.onnx").read_bytes(), artifact.content["onnx"]):
        assert b".py" not in content
        assert b"site-packages" not in content


def test_a_graph_that_differs_from_the_network_is_not_exported(trained, monkeypatch, tmp_path):
    monkeypatch.setattr(export_module, "PARITY", -1.0)
    monkeypatch.setattr(export_module, "ROUNDING", -1.0)
    with pytest.raises(ArtifactError, match="differ from the network's"):
        trained.export(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("wrong", "released"), [(1, True), (1.001, False)])
def test_huge_logits_may_differ_by_their_rounding_and_no_more(artifact, wrong, released):
    torch.manual_seed(0)
    network = create_network("fashionnet-deep").eval()
    network.fc.weight.data *= 1e6
    score = load_score((WEIGHTS / "fashionnet-deep.detector.safetensors").read_bytes())
    exported = Artifact(artifact.card, {"onnx": export_module.export_onnx(network, score)})
    network.fc.weight.data *= wrong
    with contextlib.nullcontext() if released else pytest.raises(ArtifactError, match="differ"):
        export_module.check_parity(network, score, exported)


@pytest.mark.slow
def test_a_deep_network_is_exported_though_its_huge_logits_differ_by_rounding(small_data, tmp_path):
    config = make_config(small_data, 1, changed("deep", distillation=None), name="fashionnet-deep", limit=128)
    run_ = Run.start(tmp_path, config, small_data)
    run_.trainer.network.fc.weight.data *= 1e6
    card = run_.export(tmp_path)
    assert card.architecture == "fashionnet-deep"
    assert "residual" in card.description
    images, artifact = small_data.load("test").images[:20], load_artifact(tmp_path, "fashionnet-deep")
    logits = [create_engine(name, artifact).run(images).logits for name in ("onnx", "torch")]
    difference = np.abs(logits[0] - logits[1]).max()
    assert export_module.PARITY < difference <= export_module.ROUNDING * np.abs(logits[1]).max()


def test_a_folder_that_contains_a_run_is_not_overwritten(trained, small_data):
    with pytest.raises(TrainingError, match="--resume"):
        Run.start(trained.folder.path, make_config(small_data, 1), small_data)


def test_there_must_be_a_run_to_resume(small_data, tmp_path):
    with pytest.raises(TrainingError, match="without --resume"):
        Run.resume(tmp_path, small_data)


def test_a_damaged_configuration_is_named(small_data, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config.json is damaged"):
        Run.resume(tmp_path, small_data)


def test_a_run_does_not_go_on_with_other_data(trained, fresh_data):
    with pytest.raises(TrainingError, match="another data set"):
        Run.resume(trained.folder.path, fresh_data)


@pytest.mark.parametrize("keep", [0, 2, 10_000])
def test_a_damaged_checkpoint_is_named(small_data, tmp_path, keep):
    run_ = finished(Run.start(tmp_path, make_config(small_data, 1, limit=64), small_data))
    checkpoint = run_.folder.checkpoints / "epoch-0001.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(TrainingError, match=r"epoch-0001.pt is damaged: delete it"):
        Run.resume(tmp_path, small_data)


def test_a_checkpoint_with_a_flipped_bit_is_named(small_data, tmp_path):
    run_ = finished(Run.start(tmp_path, make_config(small_data, 1, limit=64), small_data))
    checkpoint = run_.folder.checkpoints / "epoch-0001.pt"
    content = bytearray(checkpoint.read_bytes())
    for place in np.random.default_rng(0).integers(len(content), size=25):
        content[place] ^= 1
        checkpoint.write_bytes(content)
        with pytest.raises(TrainingError, match=r"epoch-0001.pt is damaged: delete it"):
            run_.folder.restore(run_.trainer)
        content[place] ^= 1
    checkpoint.write_bytes(content)
    run_.folder.restore(run_.trainer)


@pytest.mark.parametrize("name", ["config.json", "checkpoints/epoch-0001.pt"])
def test_a_folder_in_place_of_a_file_of_the_run_is_named(small_data, tmp_path, name):
    finished(Run.start(tmp_path, make_config(small_data, 1, limit=64), small_data))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(TrainingError, match=rf"{name} cannot be read \(Is a directory\)"):
        Run.resume(tmp_path, small_data)


def test_a_configuration_that_changed_after_the_start_is_refused(small_data, tmp_path):
    run_ = finished(Run.start(tmp_path, make_config(small_data, 1, limit=64), small_data))
    run_.folder.write_config(run_.config.model_copy(update={"seed": 4}))
    with pytest.raises(TrainingError, match=r"config.json was altered, epoch-0001.pt was trained with other values"):
        Run.resume(tmp_path, small_data)


def test_a_loss_that_is_no_number_ends_the_run(small_data, tmp_path):
    config = make_config(small_data, 1)
    hot = config.recipe.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match="another --seed"):
        finished(Run.start(tmp_path, config.model_copy(update={"recipe": hot}), small_data))


@pytest.mark.slow
def test_bf16_learns_too(small_data, tmp_path):
    run_ = finished(Run.start(tmp_path, make_config(small_data, 2, precision="bf16", limit=256), small_data))
    assert run_.trainer.history[-1].train_loss < run_.trainer.history[0].train_loss


@pytest.mark.parametrize(
    ("asked", "device", "bf16", "expected"),
    [
        ("auto", "cpu", False, "fp32"), ("auto", "cpu", True, "bf16"), ("auto", "cuda", False, "fp32"),
        ("auto", "cuda", True, "bf16"), ("fp32", "cpu", True, "fp32"), ("bf16", "cpu", False, "bf16"),
    ],
)  # fmt: skip
def test_precision_follows_the_instructions_of_the_device(monkeypatch, asked, device, bf16, expected):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx2"} | ({"avx512_bf16"} if bf16 else set())))
    assert choose_precision(asked, device) == expected


def command_again(folder: Path, data_set: FashionMnist, *flags: str) -> str:
    """The command that resumes the run in ``folder``."""
    return resume_command(folder, flags=[*flags, "--data-dir", str(data_set.root)])


@pytest.fixture
def train(small_data) -> Iterator[Callable[..., int]]:
    """``scripts/train.py`` on the small data, in this process; returns the exit status."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}  # a run sets its own

    def call(*words: object) -> int:
        threads = [] if "--resume" in words else ["--threads", "1"]
        return command.main(["--data-dir", str(small_data.root), *threads, *map(str, words)])

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_without_export_a_run_keeps_its_epochs_and_says_how_to_export(train, small_data, tmp_path, capsys):
    assert train("--epochs", 2, "--out", tmp_path, "--no-export") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("recipe baseline, seed 1: 2 epochs of 576 images on cpu")
    assert re.match(r"epoch 2/2  train loss .* validation loss .* images/s$", lines[2])
    assert lines[3:] == ["Every epoch is saved. Export the model by:", f"  {command_again(tmp_path, small_data)}"]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "config.json", "curves.png", "metrics.jsonl"}


def test_resume_exports_a_completed_run_and_says_how_to_serve_it(exported_run):
    lines = (exported_run / "output.txt").read_text().splitlines()
    assert "4 epochs (4 done) of 576 images" in lines[0]
    card = read_card(exported_run, "fashionnet")
    assert lines[1].startswith(f"test accuracy {card.metrics['test'].accuracy:.2%}, loss ")
    assert lines[2].endswith(f"Serve it:  FASHIONNET_MODEL_DIR={exported_run} make serve")
    assert len(lines) == 3


@pytest.fixture
def without_export(exported_run, monkeypatch) -> Path:
    """Runs export nothing, and return the card of the artefact in this folder."""
    card = read_card(exported_run, "fashionnet")
    monkeypatch.setattr(Run, "export", lambda *_: card)
    return exported_run


def test_the_printed_command_resumes_the_run_as_it_was_begun(train, small_data, tmp_path, capsys, monkeypatch):
    """In its data folder, and with the flags that a run does not keep."""
    monkeypatch.setattr(Run, "epochs", stopped_at_once)
    assert train("--epochs", 2, "--out", tmp_path, "--publish-to", tmp_path / "out", "--target-accuracy", 0.5) == 130
    printed = shlex.split(capsys.readouterr().err.splitlines()[-1])
    flags = ["--data-dir", str(small_data.root), "--publish-to", str(tmp_path / "out"), "--target-accuracy", "0.5"]
    assert printed[1:] == [*shlex.split(script("train")), "--resume", str(tmp_path), *flags]


def stopped_at_once(_run: Run) -> Iterator[None]:
    raise KeyboardInterrupt
    yield


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--teacher-dir", "learns from no other model: leave --teacher-dir out"),
        ("--photos-dir", "trains on no photos: leave --photos-dir and --held-out out"),
        ("--held-out", "trains on no photos: leave --photos-dir and --held-out out"),
    ],
)
def test_a_run_refuses_folders_that_it_makes_no_use_of(train, tmp_path, capsys, flag, sentence):
    assert train("--epochs", 1, "--out", tmp_path, "--no-export") == 0
    before = (tmp_path / "config.json").read_text()
    assert train("--resume", tmp_path, flag, "x") == 2
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == before


def test_a_run_of_an_unknown_architecture_is_one_sentence(small_data, tmp_path):
    recipe = make_config(small_data, 1).recipe.model_copy(update={"architecture": "fashionnet-next"})
    RunFolder(tmp_path).write_config(make_config(small_data, 1, recipe))
    with pytest.raises(TrainingError, match="'fashionnet-next', which this version does not have"):
        Run.resume(tmp_path, small_data)


def test_other_files_among_the_checkpoints_are_left_alone(small_data, tmp_path):
    run_ = Run.start(tmp_path, make_config(small_data, 4, limit=64), small_data)
    epochs = run_.epochs()
    next(epochs)
    own = tmp_path / "checkpoints" / "epoch-best.pt"
    own.write_bytes(b"somebody's own")
    list(epochs)
    assert run_.folder.saved_epochs() == 4
    assert [path.name for path in sorted(own.parent.iterdir())] == ["epoch-0003.pt", "epoch-0004.pt", own.name]
    assert Run.resume(tmp_path, small_data).trainer.epoch == 4


def test_a_missed_target_is_exit_status_1(train, without_export, tmp_path, capsys):
    shutil.copytree(without_export, tmp_path / "run")
    assert train("--resume", tmp_path / "run", "--target-accuracy", "0.5") == 0
    assert train("--resume", tmp_path / "run", "--target-accuracy", "1") == 1
    assert capsys.readouterr().err.endswith("% is below the target 100.00%.\n")


def test_a_dry_run_keeps_nothing(train, capsys):
    before = sorted(ROOT.glob("runs/*"))
    assert train("--dry-run", "--no-export") == 0
    assert capsys.readouterr().out.endswith("Everything works; nothing was kept.\n")
    assert sorted(ROOT.glob("runs/*")) == before


@pytest.mark.slow
def test_the_script_trains_and_exports_into_two_folders(small_data, tmp_path):
    """In a process of its own, as people start it."""
    out, published = tmp_path / "run", tmp_path / "published"
    where = ["--data-dir", str(small_data.root), "--out", str(out), "--release", str(published)]
    done = run("scripts/train.py", "--epochs", "1", "--name", "mine", *where)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "warning: --release is deprecated: use --publish-to.\n"
        "Exporting, calibrating and measuring, which takes a minute or two ...\n"
    )
    assert load_artifact(published, "mine") == load_artifact(out, "mine")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--recipe seed", "--recipe baseline"),
        ("--log=mlflow", "--tracker=mlflow"),
        ("--release m", "--publish-to m"),
        ("--parents-dir m", "--teacher-dir m"),
    ],
)
def test_old_names_work_for_one_version_with_a_warning(capsys, old, new):
    assert command.parse_arguments(old.split()) == command.parse_arguments(new.split())
    (warning,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"warning: (the recipe )?\S+ is deprecated: use \S+\.", warning)


def test_a_run_that_started_with_the_recipe_seed_resumes(small_data, tmp_path):
    """Version 0.1 writes this name into config.json and checkpoints."""
    run_ = Run.start(tmp_path, make_config(small_data, 2, limit=64), small_data)
    next(run_.epochs())
    config = json.loads(run_.folder.config_file.read_text())
    config["recipe"]["name"] = "seed"
    run_.folder.config_file.write_text(json.dumps(config))
    assert finished(Run.resume(tmp_path, small_data)).trainer.epoch == 2


def test_two_runs_do_not_train_in_one_folder_at_once(train, tmp_path, capsys):
    with RunFolder(tmp_path).locked():
        assert train("--epochs", 1, "--out", tmp_path) == 2
    errors = capsys.readouterr().err
    assert errors == f"error: Another process trains in {tmp_path}: wait until it ends, or choose another --out.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_the_epochs_that_it_has_completed(train, tmp_path, capsys):
    assert train("--epochs", 2, "--out", tmp_path, "--no-export") == 0
    before = (tmp_path / "config.json").read_text()
    assert train("--resume", tmp_path, "--epochs", 1) == 2
    assert "has completed 2 epochs already" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
def test_a_run_of_a_gpu_is_not_resumed_without_one(small_data, tmp_path):
    RunFolder(tmp_path).write_config(make_config(small_data, 2, limit=64, device="cuda"))
    with pytest.raises(TrainingError, match="trains on a GPU, and PyTorch finds none"):
        Run.resume(tmp_path, small_data)


def test_resume_removes_the_temporary_files_of_a_killed_run(train, tmp_path):
    assert train("--epochs", 1, "--out", tmp_path, "--no-export") == 0
    for left in (tmp_path / ".metrics.jsonl.1234.tmp", tmp_path / "checkpoints/.epoch-0001.pt.1234.tmp"):
        left.touch()
    assert train("--resume", tmp_path, "--no-export") == 0
    assert not list(tmp_path.rglob("*.tmp"))


@contextlib.contextmanager
def full_disk(write: int) -> Iterator[None]:
    """There is no room for the write of this number, from 0."""
    real, calls = os.fsync, itertools.count()

    def fsync(handle):
        if next(calls) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        yield


def test_a_full_disk_ends_the_run_which_goes_on_with_room(train, small_data, tmp_path, capsys):
    config, folder = make_config(small_data, 2, limit=64), RunFolder(tmp_path / "run")
    folder.write_config(config)
    resume = ["--resume", folder.path, "--no-export"]
    for write in (0, 1, 1, 2):  # first checkpoint; its metrics; its curves, at resume; second checkpoint
        with full_disk(write):
            assert train(*resume) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error == (
            f"error: There is no room in {folder.path} (No space left on device): make room, then go "
            f"on by {command_again(folder.path, small_data, '--no-export')}"
        )
    assert train(*resume) == 0
    resumed, whole = Run.resume(folder.path, small_data), finished(Run.start(tmp_path / "whole", config, small_data))
    assert state_of(resumed.trainer) == state_of(whole.trainer)
    assert figures_of(folder.metrics_file) == figures_of(whole.folder.metrics_file)


def test_an_export_without_room_for_its_temporary_files_is_one_sentence(
    train, small_data, tmp_path, monkeypatch, capsys
):
    finished(Run.start(tmp_path, make_config(small_data, 1, limit=64), small_data))
    full = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: full)
    assert train("--resume", tmp_path) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: There is no room in {tempfile.gettempdir()} (No space left on device): make room")


def test_a_disk_that_is_full_at_the_start_is_one_sentence(train, tmp_path, capsys):
    with full_disk(0):
        assert train("--out", tmp_path) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith("(No space left on device): make room, then go on by the same command")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_cleanly_and_says_how_to_resume(small_data, tmp_path, number):
    arguments = ["--data-dir", str(small_data.root), "--threads", "1", "--epochs", "500", "--out", str(tmp_path)]
    with process("scripts/train.py", *arguments) as child:
        wait_until(lambda: any(tmp_path.glob("checkpoints/*.pt")), 180)
        child.send_signal(number)
        _, errors = child.communicate(timeout=180)
    assert child.returncode == 130
    saved = int(sorted(tmp_path.glob("checkpoints/*.pt"))[-1].stem.removeprefix("epoch-"))
    stopped = f"Stopped after {saved} completed epochs, which are saved; resume by:"
    assert errors.splitlines() == ["", stopped, f"  {command_again(tmp_path, small_data)}"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_though_python_drops_its_exception(train, tmp_path, capsys, number):
    class Finalised:
        def __del__(self):
            signal.raise_signal(number)

    class Log:
        """Standard output, where the first line of an epoch is printed while a finaliser runs."""

        def write(self, text):
            if text.startswith("epoch 1/"):
                Finalised()
            return len(text)

        def flush(self):
            pass

    with contextlib.redirect_stdout(Log()):
        assert train("--epochs", 3, "--out", tmp_path, "--no-export") == 130
    assert capsys.readouterr().err.startswith("\nStopped after 1 completed epochs, which are saved; resume by:")


def test_a_hangup_that_nohup_ignores_stays_ignored(train, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    assert train("--resume", tmp_path) == 2, "there is no run"
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data-dir", "/proc/nowhere"], "cannot be written or read"),
        (["--resume", "/proc/nowhere"], "contains no run"),
        (["--epochs", "0"], "at least 1"),
        (["--epochs", "-3"], "at least 1"),
        (["--threads", "0"], "at least 1"),
        (["--seed", "-1"], "at least 0"),
        (["--seed", "20000000000000000000"], "less than 2**63"),
        (["--name", "a/b"], "--name has at most 64 letters"),
        (["--name", "config"], "and is not config"),
        (["--resume", "x", "--recipe", "baseline"], "--recipe is a setting of the run"),
        (["--resume", "x", "--precision", "auto"], "--precision is a setting of the run"),
        (["--resume", "x", "--fold", "0"], "--fold is a setting of the run"),
        (["--resume", "x", "--seed", "0"], "--seed is a setting of the run"),
        (["--teacher-dir", "x"], "learns from no other model: leave --teacher-dir out"),
        (["--resume", "x", "--seed", "2"], "--seed is a setting of the run"),
        (["--resume", "x", "--dry-run"], "--dry-run is a setting of the run"),
        (["--held-out", "x"], "--held-out belongs to --recipe photo"),
        (["--log", "nonsense"], "invalid choice"),
        pytest.param(
            ["--device", "cuda"], "no GPU here", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
        ),
        (["--dry-run", "--publish-to", "models"], "--publish-to does nothing with --dry-run"),
        (["--dry-run", "--tracker", "mlflow"], "--tracker does nothing with --dry-run"),
        (["--photos-dir", "photos"], "--photos-dir belongs to --recipe photo"),
        (["--recipe", "best", "--fold", "2"], "--fold belongs to --recipe photo"),
        (["--recipe", "photo", "--held-out", "a.npz"], "--held-out calibrates a run with --fold none"),
        (["--resume", "runs/x", "--threads", "3"], "--threads is a setting of the run"),
        (["--no-export", "--publish-to", "models"], "needs the export"),
        (["--no-export", "--target-accuracy", "0.9"], "needs the export"),
        (["--target-accuracy", "92.5"], "a fraction between 0 and 1"),
        (["--recipe", "nonsense"], "There is no recipe nonsense; choose one of baseline"),
        (["--recipe", "deep"], "needs fashionnet-teacher, missing in"),
        (["--recipe", "best"], "needs fashionnet-residual, missing in"),
        (["--recipe", "photo"], "needs photos: name their folder by --photos-dir"),
        (["--recipe", "photo", "--photos-dir", "/proc/nowhere"], "There are no labelled photos in /proc/nowhere"),
        (["--recipe", "photo", "--photos-dir", "x", "--fold", "none"], "name the files held-out.npz of other runs by"),
    ],
)
def test_an_impossible_request_is_one_sentence(train, capsys, arguments, sentence):
    try:
        status = train(*arguments)
    except SystemExit as refusal:  # argparse's
        status = refusal.code
    assert status == 2
    assert sentence in capsys.readouterr().err


class Terminal(io.StringIO):
    """Collects what a terminal shows."""

    def isatty(self) -> bool:
        return True


def test_the_progress_bar_shows_loss_accuracy_learning_rate_and_speed(train, tmp_path, monkeypatch):
    """On a terminal; a log file gets one line for each epoch instead."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert train("--epochs", 1, "--out", tmp_path, "--no-export") == 0
    for part in ("epoch 1/1", "loss ", "accuracy ", "lr 0.001", "images/s"):
        assert part in terminal.getvalue()
