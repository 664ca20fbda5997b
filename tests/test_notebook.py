"""The notebook, executed in fresh kernels as a reader does."""

import base64
import gzip
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

from model import create_engine, evaluate, network
from model.data import FILES, FashionMnist
from tests.data_sets import idx_bytes, write_sums
from tests.journeys.walks import mirror
from tests.servers import ROOT

NOTEBOOK = ROOT / "notebooks" / "Fashion_MNIST_Image_Classification.ipynb"
OWN_PICTURE = 'PICTURE = PROJECT / "app" / "static" / "examples" / "shirt.png"'

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of nbclient


def is_unwanted(output: Any) -> bool:
    """Whether an output is an error, or says more on the standard error stream than how far something is."""
    if output.get("name") == "stderr":
        return not all(re.search(r" of .+, [\d:?]+ left", line) for line in output.text.splitlines())
    return output.output_type == "error"


class Executed:
    """What the notebook put out, in the order of its cells."""

    def __init__(self, notebook: nbformat.NotebookNode, neighbours: set[Path]) -> None:
        self.neighbours = neighbours
        """What lay in the notebook's folder before."""
        self.outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        self.text = "".join(output.text for output in self.outputs if output.get("name") == "stdout")
        self.unwanted = [output for output in self.outputs if is_unwanted(output)]
        drawn = [output.data["image/png"] for output in self.outputs if "image/png" in output.get("data", {})]
        self.pictures = [Image.open(io.BytesIO(base64.b64decode(png))) for png in drawn]

    def percent(self, words: str) -> float:
        """The figure that stands behind ``words``, 0..1."""
        return float(re.search(rf"{words} ([\d.]+)%", self.text)[1]) / 100


def execute(changes: dict[str, str], **environment: str) -> Executed:
    """Run every cell in a fresh kernel in the notebook's own folder, after these changes of the source."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in changes.items():
        assert sum(old in cell.source for cell in notebook.cells) == 1, old
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    # Where pytest's own variable is set, a kernel does not catch what libraries write past Python.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    kernel = inherited | {"PYTHONPATH": str(ROOT)} | environment
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    neighbours = set(NOTEBOOK.parent.iterdir())
    NotebookClient(notebook, timeout=1200, resources=resources).execute(env=kernel)
    return Executed(notebook, neighbours)


@pytest.fixture(scope="module")
def source(small_data: FashionMnist, tmp_path_factory) -> FashionMnist:
    """The data set that the notebook downloads: a part of the real one, or a small one where that is not there."""
    real = FashionMnist(Path(os.environ.get("FASHIONNET_DATA_DIR", "data")))
    return part_of(real, tmp_path_factory.mktemp("source"), 3000, 1000) if real.folder.is_dir() else small_data


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Empty folders for what a reader's machine holds."""
    return {name: tmp_path_factory.mktemp(name) for name in ("data", "temporary", "matplotlib", "photo")}


@pytest.fixture(scope="module")
def executed(source: FashionMnist, folders) -> Executed:
    """The notebook with a photo of one's own, on a machine that has neither the data nor matplotlib's cache."""
    there, photo = FashionMnist(folders["data"]), folders["photo"] / "photo.jpg"
    there.folder.mkdir(parents=True)
    shutil.copy(source.folder / "SHA256SUMS", there.folder)
    draw_photo(photo)
    with mirror(source) as url:
        return execute(
            {OWN_PICTURE: f"PICTURE = Path({str(photo)!r})"},
            FASHIONNET_DATA_DIR=str(there.root),
            FASHIONNET_DATA_URL=url,
            TMPDIR=str(folders["temporary"]),
            MPLCONFIGDIR=str(folders["matplotlib"]),
        )


@pytest.mark.slow
def test_it_runs_without_errors_or_warnings(executed):
    assert not executed.unwanted
    assert "Warning" not in executed.text, "the messages of a download stand in the text"


@pytest.mark.slow
def test_it_says_how_training_and_evaluation_went(executed):
    assert "1,199,882 parameters" in executed.text
    assert re.search(r"batch +(\d+) of \1: loss", executed.text), "the last batch of the epoch"
    assert re.findall(r"^epoch (\d): training loss", executed.text, re.MULTILINE) == ["1", "2"]
    assert executed.percent("validation loss [\\d.]+, accuracy") > 0.5
    assert executed.percent("test accuracy") > 0.5


@pytest.mark.slow
def test_it_measures_the_committed_weights(executed, source, artifact):
    test = source.load("test")
    for engine, precision in {"onnx": "in full precision", "onnx-int8": "in 8 bits"}.items():
        expected = evaluate(create_engine(engine, artifact), test).accuracy
        assert executed.percent(f"of the committed weights {precision}:") == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_it_draws_every_picture(executed):
    images, curves, confusion, seen, wrong, own, heat = (picture.size for picture in executed.pictures)
    assert images[0] == seen[0] == wrong[0], "three grids of five columns"
    assert seen[1] > images[1], "of two rows and of four"
    assert curves == (1080, 420)
    assert confusion[0] == confusion[1]
    assert own[0] > 1.5 * own[1], "the picture beside its 28x28"
    assert heat == (320, 480), "the photo, upright and smaller"


@pytest.mark.slow
def test_it_leaves_nothing_behind_but_the_data(executed, folders, source):
    downloaded = FashionMnist(folders["data"]).folder
    assert {file.name for file in downloaded.iterdir()} == {file.name for file in source.folder.iterdir()}
    left = [path.name for path in folders["temporary"].iterdir() if not path.name.startswith("torchinductor_")]
    assert not left, "PyTorch makes an empty folder for its cache, the notebook none"
    assert set(NOTEBOOK.parent.iterdir()) == executed.neighbours


def test_the_picture_that_it_names_is_there():
    names = re.findall(r'"([^"]+)"', OWN_PICTURE)
    assert ROOT.joinpath(*names).is_file()


def part_of(whole: FashionMnist, root: Path, train: int, test: int) -> FashionMnist:
    """The first images of both splits of a data set, under ``root``."""
    part = FashionMnist(root)
    part.folder.mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        for name, array in zip(FILES[split], whole.load(split), strict=True):
            (part.folder / name).write_bytes(gzip.compress(idx_bytes(array[:count]), 1))
    write_sums(part)
    return part


def draw_photo(path: Path) -> None:
    """A JPEG of a dark article on a background of many colours, lying on its side as EXIF says."""
    pixels = np.random.default_rng(0).integers(120, 250, (40, 60, 3), np.uint8)
    photo = Image.fromarray(pixels).resize((600, 400), Image.Resampling.BICUBIC)
    photo.paste((30, 40, 90), (150, 120, 450, 280))
    photo.getexif()[274] = 6  # the orientation
    photo.save(path, exif=photo.getexif())


def test_it_is_committed_without_outputs_for_any_python():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert str(ROOT) not in NOTEBOOK.read_text()


@pytest.fixture
def written() -> Any:
    """The class FashionNet as the notebook's cell defines it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = (cell for cell in notebook.cells if "class FashionNet" in cell.source)
    names: dict[str, Any] = {"torch": torch}
    exec(compile(cell.source, "cell", "exec"), names)  # noqa: S102
    return names["FashionNet"]


def test_its_network_is_the_projects_own(written):
    own, project = written().eval(), network.FashionNet().eval()
    own.load_state_dict(project.state_dict())  # raises where a name or a shape differs
    images = torch.randint(0, 256, (16, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(own(images), project(images))
        torch.testing.assert_close(own(images.float()), project(images))
    dropped = [layer.p for layer in own.modules() if isinstance(layer, torch.nn.Dropout)]
    assert tuple(dropped) == project.dropout_rates
