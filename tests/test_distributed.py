"""Training in several processes, started by torchrun as people start it."""

import re
from pathlib import Path

import pytest
import torch

from model import FashionMnist
from model.errors import TrainingError
from model.installation import python_command
from model.training.loop import EpochMetrics, choose_precision
from model.training.run import Run, resume_command
from model.training.run_folder import RunFolder
from tests import several_processes
from tests.servers import children_of, process, run, wait_until
from tests.training_runs import make_config

pytestmark = pytest.mark.slow

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def together(small_data, exported_run, tmp_path_factory) -> Path:
    """Runs of two processes, each resumed once, which must end in the same weights, bit for bit."""
    folder = tmp_path_factory.mktemp("together")
    done = run(*TORCHRUN, "tests/several_processes.py", str(small_data.root), str(exported_run), str(folder))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return folder


RECIPES = ["baseline", "best", "deep"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_processes_hold_equal_networks(together, recipe):
    first, second = (torch.load(together / f"{recipe}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name


@pytest.fixture(scope="module")
def alone(small_data, exported_run, tmp_path_factory) -> dict[str, Run]:
    """The same runs in one process."""
    return several_processes.train(small_data, exported_run, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_learn_as_much_as_one(together, alone, recipe):
    """Within three of the 64 validation images."""
    *_, last = RunFolder(together / recipe).metrics_file.read_text().splitlines()
    accuracy = EpochMetrics.model_validate_json(last).validation_accuracy
    assert accuracy == pytest.approx(alone[recipe].trainer.history[-1].validation_accuracy, abs=0.05)
    assert accuracy > 0.7


def test_a_run_of_two_processes_is_resumed_by_two(small_data, tmp_path):
    RunFolder(tmp_path).write_config(make_config(small_data, 1, processes=2))
    command = f"{python_command('torchrun')} --nproc-per-node=2 scripts/train.py --resume {tmp_path}"
    with pytest.raises(TrainingError, match=re.escape(command)):
        Run.resume(tmp_path, small_data)


def arguments(data_set: FashionMnist, out: Path) -> list[str]:
    return [
        "scripts/train.py",
        "--data-dir",
        str(data_set.root),
        "--threads",
        "1",
        "--epochs",
        "500",
        "--out",
        str(out),
    ]


def test_a_killed_process_ends_the_run_with_a_clear_message_and_no_damage(small_data, tmp_path):
    with process(*TORCHRUN, *arguments(small_data, tmp_path)) as launcher:
        wait_until(lambda: any(tmp_path.glob("checkpoints/*.pt")), 90)
        children_of(launcher)[0].kill()
        printed, errors = launcher.communicate(timeout=90)
    assert launcher.returncode != 0
    assert resume_command(tmp_path, 2) in errors
    lines = printed.splitlines()
    assert f"on cpu (2 processes with 1 threads, {choose_precision('auto', 'cpu')})" in lines[0]
    assert [line.split()[:2] for line in lines[1:]] == [["epoch", f"{n}/500"] for n in range(1, len(lines))], (
        "once each"
    )
    torch.load(sorted(tmp_path.glob("checkpoints/*.pt"))[-1], weights_only=True)


def test_a_refusal_is_printed_and_ends_every_process(small_data, tmp_path):
    RunFolder(tmp_path).write_config(make_config(small_data, 1))
    done = run(*TORCHRUN, *arguments(small_data, tmp_path))
    assert done.returncode != 0
    assert "contains a run" in done.stderr
