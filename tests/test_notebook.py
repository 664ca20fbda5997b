import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.data_sets import real_data_set
from tests.servers import ROOT

NOTEBOOK = ROOT / "notebooks" / "Fashion_MNIST_Image_Classification.ipynb"


def execute(data_dir, epochs: int) -> str:
    """Run every cell in a fresh kernel; returns what they printed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("EPOCHS = 2", f"EPOCHS = {epochs}")
    environment = os.environ | {"FASHIONNET_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute(env=environment)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3, "show() draws in the notebook"
    return "".join(output.get("text", "") for output in outputs)


def accuracy(text: str, words: str) -> float:
    return float(re.search(rf"{words}:? ([\d.]+)%", text)[1]) / 100


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_on_small_data(small_data):
    text = execute(small_data.root, epochs=2)
    assert "1,199,882 parameters" in text
    assert accuracy(text, "test accuracy") > 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_on_the_real_data(artifact):
    text = execute(real_data_set().root, epochs=1)
    assert accuracy(text, "test accuracy") > 0.85
    expected = artifact.card.metrics["test"].accuracy
    assert accuracy(text, "committed weights") == pytest.approx(expected, abs=2e-4)


def test_the_notebook_is_committed_without_outputs_and_defines_nothing():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert not re.search(r"^(def|class) ", cell.source, re.MULTILINE)
