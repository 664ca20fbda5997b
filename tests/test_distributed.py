"""Training in several processes, started by torchrun as people start it."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch

from model import load_artifact
from model.errors import TrainingError
from model.training.run import Run, resume_command
from tests.servers import process, run, wait_until

pytestmark = pytest.mark.slow

TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]


def torchrun(count: int, *command: str) -> str:
    done = run(*TORCHRUN, f"--nproc-per-node={count}", *command)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("recipe", ["baseline", "best", "deep"])
def test_three_processes_learn_the_same_as_one(tmp_path, recipe):
    """Dropout, batch normalisation, augmentation, a teacher's answers: everything that spans a batch."""
    states = []
    for count in (1, 3):
        path = tmp_path / f"{count}.pt"
        torchrun(count, "tests/shared_step.py", recipe, str(path))
        states.append(torch.load(path, weights_only=True))
    one, three = states
    for name, tensor in one["network"].items():
        torch.testing.assert_close(three["network"][name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert three["validated"] == pytest.approx(one["validated"], rel=1e-3)
    torch.testing.assert_close(three["answers"], one["answers"], rtol=1e-4, atol=1e-4)


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [
        "scripts/train.py",
        "--data-dir",
        str(data),
        "--threads",
        "1",
        "--precision",
        "fp32",
        "--out",
        str(out),
        *more,
    ]


@pytest.fixture(scope="module")
def two(small_data, tmp_path_factory) -> tuple[Path, str]:
    """A run of two processes, and what it printed."""
    out = tmp_path_factory.mktemp("two")
    return out, torchrun(2, *arguments(small_data.root, out, "--epochs", "3"))


def test_two_processes_make_the_artefact_of_one_and_print_once(two, small_data, tmp_path):
    folder, printed = two
    run(*arguments(small_data.root, tmp_path, "--epochs", "3"))
    together, alone = (load_artifact(path, "fashionnet") for path in (folder, tmp_path))
    for name in ("validation", "test"):
        assert together.card.metrics[name].loss == pytest.approx(alone.card.metrics[name].loss, abs=1e-3)
    lines = printed.splitlines()
    assert "on cpu (2 processes with 1 threads, fp32)" in lines[0]
    assert [line.split()[0] for line in lines] == ["recipe", *["epoch"] * 3, "test", "Wrote"]


def test_a_run_of_two_resumes_bit_for_bit(two, small_data, tmp_path):
    with pytest.raises(
        TrainingError, match=re.escape(f"torchrun --nproc-per-node=2 scripts/train.py --resume {two[0]}")
    ):
        Run.resume(two[0], small_data)
    torchrun(2, *arguments(small_data.root, tmp_path, "--epochs", "1"))
    resume = ["scripts/train.py", "--data-dir", str(small_data.root), "--resume", str(tmp_path), "--epochs", "3"]
    torchrun(2, *resume)
    whole, resumed = (load_artifact(path, "fashionnet").content["safetensors"] for path in (two[0], tmp_path))
    assert resumed == whole


@pytest.mark.parametrize(
    "signals",
    [{0: signal.SIGKILL}, {1: signal.SIGKILL}, {0: signal.SIGKILL, 1: signal.SIGTERM}],
    ids=["the first", "the second", "the first, and torchrun is quick to end the second"],
)
def test_a_killed_process_ends_the_run_with_a_clear_message_and_no_damage(small_data, tmp_path, signals):
    command = [*TORCHRUN, "--nproc-per-node=2", *arguments(small_data.root, tmp_path, "--epochs", "500")]
    with process(*command) as launcher:
        wait_until(lambda: any(tmp_path.glob("checkpoints/*.pt")), 90)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        for rank, signum in signals.items():
            os.kill(int(children[rank]), signum)
        _, errors = launcher.communicate(timeout=90)
    assert launcher.returncode != 0
    assert resume_command(tmp_path, 2) in errors
    torch.load(sorted(tmp_path.glob("checkpoints/*.pt"))[-1], weights_only=True)


def test_a_refusal_is_printed_and_ends_every_process(two, small_data):
    done = run(*TORCHRUN, "--nproc-per-node=2", *arguments(small_data.root, two[0]))
    assert done.returncode != 0
    assert "holds a run already" in done.stderr
