"""A trained network on disk: ``NAME.safetensors`` (the truth), ``NAME.onnx`` (made from it), ``NAME.json`` (the card).

``NAME.detector.safetensors`` tells images that are none of the ten classes; ``NAME.int8.onnx`` may lie beside them:
the graph with 8-bit weights and activations, where that is quicker.
Loading checks the sums in the card and never unpickles anything.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.errors import ArtifactCorrupt, ArtifactError, ArtifactMissing
from model.files import write_atomically
from model.metrics import Metrics, Report

Format = Literal["safetensors", "onnx", "int8.onnx", "detector.safetensors"]
REQUIRED: frozenset[Format] = frozenset({"safetensors", "onnx", "detector.safetensors"})


class FileRecord(BaseModel):
    """What a file of the artefact must be."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ModelCard(BaseModel):
    """What a trained network is, where it came from and how good it was measured to be."""

    model_config = ConfigDict(frozen=True)

    name: str
    architecture: str
    members: int = Field(default=1, ge=1)
    """How many networks of that architecture it is; the logits of several are averaged."""
    description: str
    parameters: int
    classes: tuple[str, ...]
    recipe: dict[str, Any]
    training: dict[str, Any]
    """Seed, precision, threads, epochs, library versions, CPU or GPU, date."""
    data: dict[str, str]
    """SHA-256 of the data set's files, by name."""
    metrics: dict[str, Report | Metrics]
    """By split, of the graph in full precision: ``test`` has all figures (older cards: the short ones), ``validation``
    the short ones."""
    int8_metrics: dict[str, Report | Metrics] = {}
    """The same of the graph in 8 bits, where there is one."""
    temperature: float = Field(default=1.0, gt=0)
    """Calibration: probabilities are softmax(logits / temperature); 1 changes nothing."""
    ood_auroc: dict[str, float] = {}
    """How well the detector tells made outliers from the test images, by kind: AUROC, 0..1."""
    history: tuple[dict[str, float], ...] = ()
    """The training's metrics, an epoch each."""
    license: str = "MIT"
    files: dict[Format, FileRecord] = {}

    def measured_with(self, engine: str) -> dict[str, Report | Metrics]:
        """The figures, by split, of the graph that the engine of that name runs."""
        return self.int8_metrics if engine == "onnx-int8" else self.metrics

    @property
    def version(self) -> str:
        """The first 12 digits of the weights' SHA-256: other weights, another version."""
        return self.files["safetensors"].sha256[:12]


@dataclass(frozen=True)
class Artifact:
    """A checked artefact: the card, and the bytes of the files that were asked for."""

    card: ModelCard
    content: dict[Format, bytes]


def load_artifact(folder: Path, name: str, formats: Iterable[Format] | None = None) -> Artifact:
    """Read the card ``NAME.json`` in ``folder`` and the files of ``formats`` (default: all), and compare their sums.

    Raises:
        ArtifactMissing: a file is not there.
        ArtifactCorrupt: the card is not one, or a file is not the one that it names.
        ArtifactError: a file cannot be read.
    """
    card = read_card(folder, name)
    wanted = formats or card.files
    return Artifact(card, {format_: _read_checked(folder / f"{name}.{format_}", card, format_) for format_ in wanted})


def read_card(folder: Path, name: str) -> ModelCard:
    """The card of the artefact ``name``, without its files.

    Raises:
        ArtifactMissing: it is not there.
        ArtifactCorrupt: it is not a model card, or not that of ``name``.
        ArtifactError: it cannot be read.
    """
    path = folder / f"{name}.json"
    try:
        card = ModelCard.model_validate_json(_read(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ArtifactCorrupt(f"{path} is not a model card ({where}: {problem['msg']}). {_REMEDY}") from None
    if card.name != name or not set(card.files) >= REQUIRED:
        raise ArtifactCorrupt(f"{path} is not the complete card of {name}. {_REMEDY}")
    return card


def save_artifact(folder: Path, card: ModelCard, content: dict[Format, bytes]) -> ModelCard:
    """Write the files, each whole or not at all, the card last; returns the card with the files' sums."""
    sums = {format_: FileRecord(sha256=_sha256(data), bytes=len(data)) for format_, data in content.items()}
    card = card.model_copy(update={"files": sums})
    for format_, data in content.items():
        write_atomically(folder / f"{card.name}.{format_}", data)
    return save_card(folder, card)


def save_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write ``NAME.json`` alone; returns the card."""
    text = _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), card.model_dump_json(indent=2))
    write_atomically(folder / f"{card.name}.json", text.encode() + b"\n")
    return card


_NUMBERS = re.compile(r"(?<=\[)\n[-+.eE\d,\s]+(?=\])")
"""Inside a list of numbers. It goes on one line, so that a confusion matrix has a line for each class."""


def list_artifacts(folder: Path) -> list[str]:
    """Returns the sorted names of the artefacts in ``folder``: of each card that has weights or a graph beside it.

    Other JSON files, such as the configuration of a training run, are ignored.
    """
    formats = get_args(Format)
    return sorted(
        card.stem
        for card in folder.glob("*.json")
        if any(card.with_name(f"{card.stem}.{format_}").exists() for format_ in formats)
    )


_REMEDY = "Restore the files of this model from a release or a backup."


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactMissing(f"{path} is missing. {_REMEDY}") from None
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror}): let the user that runs FashionNet read it, or restore it."
        ) from None


def _read_checked(path: Path, card: ModelCard, format_: Format) -> bytes:
    content = _read(path)
    expected = card.files[format_]
    if len(content) < expected.bytes:
        raise ArtifactCorrupt(f"{path} is truncated: {len(content)} bytes of {expected.bytes}. {_REMEDY}")
    if _sha256(content) != expected.sha256:
        raise ArtifactCorrupt(f"{path} was altered: its SHA-256 is not the one in its card. {_REMEDY}")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
