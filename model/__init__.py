"""FashionNet without HTTP: data, preprocessing, artefacts, engines, evaluation, pictures.

What is named here needs no torch; ``model.network`` and ``model.training`` do.
"""

from pathlib import Path

from model.artifact import Artifact, ModelCard, list_artifacts, load_artifact
from model.cpu import usable_cores
from model.data import CLASSES, FashionMnist, Split
from model.data import DEFAULT_URL as DEFAULT_DATA_URL
from model.engines import (
    Engine,
    EngineName,
    EngineOutputs,
    Finding,
    create_engine,
    load_for_engine,
    log_softmax,
    softmax,
)
from model.errors import (
    ArtifactError,
    ArtifactMissing,
    DamagedImage,
    DataError,
    EmptyImage,
    FashionNetError,
    ImageError,
    NotAnImage,
    TooManyPixels,
    UnknownFormat,
)
from model.evaluation.figures import Metrics, Report
from model.evaluation.report import chunks, evaluate, report
from model.explanation import draw_canvas, draw_heat_map, heat_map, occlusions
from model.files import user_path
from model.installation import DATA_DIR as DEFAULT_DATA_DIR
from model.installation import download_command, install_command, requires_extra
from model.plots.confusion import draw_confusion
from model.plots.gallery import draw_gallery, show
from model.prediction import Prediction, classify, examine, findings, views
from model.preprocessing.pipeline import UNTOUCHED, Choice, Picture, is_in_form, preprocess

WEIGHTS = Path(__file__).parent / "weights"
"""The folder of the artefacts that come with FashionNet."""

__all__ = [
    "CLASSES", "DEFAULT_DATA_DIR", "DEFAULT_DATA_URL", "UNTOUCHED", "WEIGHTS", "Artifact", "ArtifactError",
    "ArtifactMissing", "Choice", "DamagedImage", "DataError", "EmptyImage", "Engine", "EngineName",
    "EngineOutputs", "FashionMnist", "FashionNetError", "Finding", "ImageError", "Metrics", "ModelCard",
    "NotAnImage", "Picture", "Prediction", "Report", "Split", "TooManyPixels", "UnknownFormat", "chunks",
    "classify", "create_engine", "download_command", "draw_canvas", "draw_confusion", "draw_gallery",
    "draw_heat_map", "evaluate", "examine", "findings", "heat_map", "install_command", "is_in_form",
    "list_artifacts", "load_artifact", "load_for_engine", "log_softmax", "occlusions", "preprocess", "report",
    "requires_extra", "show", "softmax", "usable_cores", "user_path", "views",
]  # fmt: skip
