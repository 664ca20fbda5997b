"""A trained model on disk: the files of one name.

- ``NAME.safetensors``: the weights
- ``NAME.onnx``: the graph in full precision
- ``NAME.int8.onnx``: the graph with 8-bit weights and activations (optional)
- ``NAME.detector.safetensors``: the out-of-distribution score
- ``NAME.json``: the card, with the checksums of the other files and one of its own fields

Loading compares the checksums and never unpickles.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError, to_json

from model.data import CLASSES
from model.drift import Feature, Histogram
from model.errors import ArtifactCorrupt, ArtifactError, ArtifactMissing
from model.files import remove_temporary_files, write_all, write_atomically
from model.inputs import ModelInput
from model.metrics import Metrics, Report

Format = Literal["safetensors", "onnx", "int8.onnx", "detector.safetensors"]
REQUIRED: frozenset[Format] = frozenset({"safetensors", "onnx", "detector.safetensors"})
CHECKSUM = "sha256"
"""The field of a card with the checksum of its other fields."""
TEMPERATURES = (0.05, 20.0)
"""The least and greatest temperature of a card."""


class FileRecord(BaseModel):
    """The checksum and size of a file."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ModelCard(BaseModel):
    """Describes a trained model: its architecture, training, data and figures."""

    model_config = ConfigDict(frozen=True)

    name: str
    architecture: str
    members: int = Field(default=1, ge=1)
    """Number of networks of this architecture; their logits are averaged."""
    description: str
    input: ModelInput = ModelInput()
    """The images that the model takes."""
    parameters: int
    classes: tuple[str, ...]
    recipe: dict[str, Any]
    training: dict[str, Any]
    """Seed, precision, threads, epochs, library versions, device, date."""
    data: dict[str, str]
    """SHA-256 of the data set's files by name."""
    metrics: dict[str, Report | Metrics]
    """Figures of the graph in full precision by split: a Report for ``test`` (Metrics in older cards) and for
    ``photos``, Metrics for ``validation``."""
    int8_metrics: dict[str, Report | Metrics] = {}
    """Figures of the 8-bit graph, if there is one."""
    temperature: float = Field(ge=TEMPERATURES[0], le=TEMPERATURES[1])
    """Calibration: probabilities are softmax(logits / temperature)."""
    ood_auroc: dict[str, float] = {}
    """AUROC of the OOD score by kind of OOD images, against the test images."""
    histograms: dict[Feature, Histogram] = {}
    """Predictions for the validation images, which drift is measured against; none in older cards."""
    history: tuple[dict[str, float], ...] = ()
    """Training metrics of each epoch."""
    license: str = "MIT"
    notice: str = ""
    """Other people's weights and data that the model is made of, and what it was and was not measured on."""
    files: dict[Format, FileRecord] = {}

    @field_validator("classes")
    @classmethod
    def _require_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes != CLASSES:
            raise PydanticCustomError("classes", "these are not the ten classes of Fashion-MNIST in their order")
        return classes

    def measured_with(self, engine: str) -> dict[str, Report | Metrics]:
        """Returns the figures by split of the graph that the named engine runs."""
        return self.int8_metrics if engine == "onnx-int8" else self.metrics

    @property
    def version(self) -> str:
        """The first 12 digits of the SHA-256 of the weights."""
        return self.files["safetensors"].sha256[:12]


@dataclass(frozen=True)
class Artifact:
    """A card and the content of files whose checksums match it."""

    card: ModelCard
    content: dict[Format, bytes]


def load_artifact(folder: Path, name: str, formats: Iterable[Format] | None = None) -> Artifact:
    """Reads the card ``NAME.json`` and the files of ``formats`` (default: all), and compares their checksums.

    Raises:
        ArtifactMissing: a file does not exist.
        ArtifactCorrupt: the card is invalid, or a file does not match its checksum.
        ArtifactError: a file cannot be read.
    """
    card = read_card(folder, name)
    wanted = formats or card.files
    return Artifact(card, {format_: _read_checked(folder / f"{name}.{format_}", card, format_) for format_ in wanted})


def read_card(folder: Path, name: str) -> ModelCard:
    """Reads the card ``NAME.json`` alone.

    ``sha256`` in the file is the checksum of its other fields. A card without it, of an earlier version or made by
    hand, is accepted if its fields are valid.

    Raises:
        ArtifactMissing: the card does not exist.
        ArtifactCorrupt: the card is invalid, was altered, or describes another model.
        ArtifactError: the card cannot be read.
    """
    path = folder / f"{name}.json"
    fields = _parse(path)
    expected = fields.pop(CHECKSUM, None)
    card = _validate(path, fields)
    if expected not in (None, _checksum(fields)):
        raise ArtifactCorrupt(
            f"{path} was altered, its {CHECKSUM} is not that of its other fields: restore it from a release or a "
            f"backup, or remove {CHECKSUM} if the change is yours."
        )
    if card.name != name or not set(card.files) >= REQUIRED:
        raise ArtifactCorrupt(f"{path} is not the complete card of {name}: {_REMEDY}")
    return card


def _parse(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(_read(path))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ArtifactCorrupt(f"{path} is not a model card, because it is no JSON object: {_REMEDY}")
    return fields


def _validate(path: Path, fields: dict[str, Any]) -> ModelCard:
    try:
        return ModelCard.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ArtifactCorrupt(f"{path} is not a model card ({where}: {problem['msg']}): {_REMEDY}") from None


def _checksum(fields: dict[str, Any]) -> str:
    """Returns the SHA-256 of the fields as JSON with sorted keys, which spaces and line feeds do not change."""
    return _sha256(json.dumps(fields, sort_keys=True).encode())


def save_artifact(folder: Path, card: ModelCard, content: dict[Format, bytes]) -> ModelCard:
    """Writes the files, the card last, and deletes those that the model has no more. Returns the card with checksums.

    No file is replaced before there is room for all.
    """
    remove_temporary_files(folder, f"{card.name}.")
    sums = {format_: FileRecord(sha256=_sha256(data), bytes=len(data)) for format_, data in content.items()}
    card = card.model_copy(update={"files": sums})
    files = {folder / f"{card.name}.{format_}": data for format_, data in content.items()}
    write_all(files | {folder / f"{card.name}.json": _to_text(card)})
    for format_ in set(get_args(Format)) - content.keys():
        (folder / f"{card.name}.{format_}").unlink(missing_ok=True)
    return card


def save_card(folder: Path, card: ModelCard) -> ModelCard:
    """Writes ``NAME.json`` alone. Returns the card."""
    write_atomically(folder / f"{card.name}.json", _to_text(card))
    return card


def _to_text(card: ModelCard) -> bytes:
    """Returns the card as JSON, with the checksum of its fields."""
    fields = json.loads(card.model_dump_json())
    text = to_json(fields | {CHECKSUM: _checksum(fields)}, indent=2).decode()
    text = _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), text)
    return text.encode() + b"\n"


_NUMBERS = re.compile(r"(?<=\[)\n[-+.eE\d,\s]+(?=\])")
"""The inside of a list of numbers, which is written on one line: a confusion matrix has a line for each class."""


def list_artifacts(folder: Path) -> list[str]:
    """Returns the sorted names of the artefacts in ``folder``: the cards that have weights or a graph.

    Other JSON files, such as the configuration of a training run, are ignored. Raises ArtifactError if the folder
    cannot be read.
    """
    try:
        files = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ArtifactError(_unreadable(folder, error)) from None
    names = (file.removesuffix(".json") for file in files if file.endswith(".json"))
    return sorted(name for name in names if any(f"{name}.{format_}" in files for format_ in get_args(Format)))


def require_artifact(folder: Path, name: str) -> None:
    """Raises ArtifactMissing, with the names of those that are there, if the folder has no such artefact."""
    names = list_artifacts(folder)
    if name not in names:
        raise ArtifactMissing(f"There is no model {name!r} in {folder}; there are: {', '.join(names) or 'none'}.")


_REMEDY = "restore the files of this model from a release or a backup."


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactMissing(f"{path} is missing: {_REMEDY}") from None
    except OSError as error:
        raise ArtifactError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}): let the user that runs FashionNet read it, or restore it."


def _read_checked(path: Path, card: ModelCard, format_: Format) -> bytes:
    content = _read(path)
    expected = card.files[format_]
    if len(content) < expected.bytes:
        raise ArtifactCorrupt(f"{path} is truncated to {len(content)} of {expected.bytes} bytes: {_REMEDY}")
    if _sha256(content) != expected.sha256:
        raise ArtifactCorrupt(f"{path} was altered, its SHA-256 is not the one in its card: {_REMEDY}")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
