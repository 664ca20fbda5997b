"""Which rule for the temperature calibrates better? Both on held-out folds of the validation images.

Each rule is fitted on four fifths of the validation images and measured on the last fifth, in five stratified folds.
The rules are the least negative log-likelihood (NLL; Guo et al., arXiv:1706.04599), expectation consistency (EC: the
mean confidence equals the accuracy; arXiv:2303.02644) and no temperature. The logits are those of the graph in full
precision. The test images are not used.

python benchmarks/temperature.py
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.model_selection import StratifiedKFold

from app.settings import read_settings
from benchmarks.report import table
from model import FashionMnist, create_engine, list_artifacts, load_artifact
from model.artifact import read_card
from model.engines import run_batches, softmax
from model.evaluation.report import report
from model.export.temperature import fit_temperature
from model.training.recipes import Recipe
from model.training.run import training_splits

Rule = Callable[[NDArray[np.float32], NDArray[np.uint8]], float]
FOLDS = 5


def expectation_consistency(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Returns the temperature at which the mean confidence equals the accuracy."""
    accuracy = (logits.argmax(1) == labels).mean()

    def difference(log_temperature: float) -> float:
        return float((softmax(logits / np.float32(np.exp(log_temperature))).max(1).mean() - accuracy) ** 2)

    return float(np.exp(minimize_scalar(difference, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6}).x))


RULES: dict[str, Rule] = {"NLL": fit_temperature, "EC": expectation_consistency, "none": lambda _logits, _labels: 1.0}


def cross_validate(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Returns temperature, NLL and ECE ``[FOLDS, 3]`` by rule; the last two of the held-out fold."""
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(logits, labels))
    return {
        name: np.array([_measure(rule(logits[fit], labels[fit]), logits[held], labels[held]) for fit, held in folds])
        for name, rule in RULES.items()
    }


def _measure(temperature: float, logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> tuple[float, float, float]:
    figures = report(logits, labels, temperature=temperature)
    return temperature, figures.loss, figures.ece


def validation_logits(name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Returns the logits of the validation images, and their labels."""
    artifact = load_artifact(read_settings().model_dir, name)
    card, data_set = artifact.card, FashionMnist(read_settings().data_dir)
    _, validation = training_splits(data_set, Recipe(**card.recipe), card.training["seed"])
    return run_batches(create_engine("onnx", artifact, 2), validation.images).logits, validation.labels


def main() -> None:
    """Print a row per network and rule: means and standard deviations over the folds."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder = read_settings().model_dir
    names = [name for name in list_artifacts(folder) if read_card(folder, name).input.convention == "fashion-mnist"]
    rows = []
    for name in names:
        logits, labels = validation_logits(name)
        found = cross_validate(logits, labels)
        for rule, folds in found.items():
            difference = folds[:, 1] - found["NLL"][:, 1]
            cells = (folds[:, 0], folds[:, 1], difference, folds[:, 2])
            shown = [f"{cell.mean():.5f} ± {cell.std(ddof=1):.5f}" for cell in cells]
            rows.append((name, str(len(labels)), rule, *shown))
    head = ("network", "n", "rule", "temperature", "held-out NLL", "minus that of NLL", "held-out ECE")
    print(table(head, rows))


if __name__ == "__main__":
    main()
