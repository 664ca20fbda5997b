"""FashionNet without HTTP: data, preprocessing, artefacts, engines, evaluation, plots.

What is named here needs no torch; ``model.network``, ``model.training`` and ``model.export`` do.
"""

from pathlib import Path

from model.artifact import Artifact, ModelCard, list_artifacts, load_artifact
from model.cpu import usable_cores
from model.data import CLASSES, FashionMnist, Split
from model.engines import Engine, create_engine
from model.errors import FashionNetError
from model.evaluation import Report, evaluate
from model.plots import draw_gallery, show
from model.prediction import Prediction, classify
from model.preprocessing import Picture, preprocess

WEIGHTS = Path(__file__).parent / "weights"
"""The folder of the artefacts that come with FashionNet."""

__all__ = [
    "CLASSES", "WEIGHTS", "Artifact", "Engine", "FashionMnist", "FashionNetError", "ModelCard", "Picture",
    "Prediction", "Report", "Split", "classify", "create_engine", "draw_gallery", "evaluate", "list_artifacts",
    "load_artifact", "preprocess", "show", "usable_cores",
]  # fmt: skip
