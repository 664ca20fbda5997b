"""From a trained network to an artefact that is served: the passes, in order, are in ``build_graphs``."""

import errno
import logging
import os
import shutil
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.artifact import Artifact, Format, ModelCard
from model.cpu import usable_cores
from model.data import CLASSES, Split
from model.drift import Feature, Histogram, reference_histograms
from model.engines import CLASS_MAPS, EngineOutputs, Int8OnnxEngine, OnnxEngine, run_batches, softmax
from model.errors import ArtifactError
from model.evaluation.ood_sets import measure_ood_auroc
from model.evaluation.report import evaluate
from model.export.low_rank import factorized
from model.export.quantize import CALIBRATION_IMAGES, quantize
from model.export.row_convolution import to_row_convolution
from model.export.temperature import fit_temperature
from model.metrics import Metrics, Report
from model.network import Network, NetworkOutputs, PhotoFashionNet
from model.ood.distance_score import Floats
from model.ood.fit import CHUNK, LabelledOutputs, fit_ood_score, in_chunks
from model.ood.photo_score import PhotoOodScore
from model.ood.score import OodScore
from model.training.loop import Trainer, describe_machine

# The exporter warns that it cannot translate torchvision's operators, which nothing here uses.
logging.getLogger("torch.onnx").setLevel(logging.ERROR)

PARITY = 1e-4
"""Maximum absolute difference between the outputs of the exported graph and those of the network."""
ROUNDING = 1e-6
"""The same relative to the largest output: rounding errors of float32 when the logits are very large."""
SCORE_PARITY, SCORE_ROUNDING = 1e-2, 1e-5
"""The same two limits for OOD scores, which divide small differences of distances by their spread. The first is a
hundredth of the distance from a typical image to the threshold."""

MAX_INT8_LOSS = 0.001
"""Maximum loss of validation accuracy in 8 bits; an artefact whose graph loses more has none in 8 bits."""


class ServingModule(nn.Module):
    """The network and the out-of-distribution score, as one module to export."""

    def __init__(self, network: Network, score: OodScore | PhotoOodScore | None) -> None:
        super().__init__()
        self.network, self.score = network, score
        self.output_names = NetworkOutputs._fields + (("ood_scores",) if score else ())
        if isinstance(network, PhotoFashionNet):
            self.output_names += (CLASS_MAPS,)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images uint8 ``[N, *shape]`` -> the outputs named in ``output_names``."""
        outputs = self.network.outputs(images)
        scores = (self.score(images, outputs.logits, outputs.features),) if self.score else ()
        maps = (self.network.class_maps(images),) if isinstance(self.network, PhotoFashionNet) else ()
        return (*outputs, *scores, *maps)


def export(network: Network, card: ModelCard, train: Split, splits: dict[str, Split]) -> Artifact:
    """Returns the trained network as an artefact; its card has the figures measured on the exported graphs.

    Args:
        network: as ``model.network.network_to_export`` returns it, on the CPU.
        card: without figures.
        train: the images that the network was trained on. The centres of the out-of-distribution score are fitted on
            them, and the first of them calibrate the graph in 8 bits.
        splits: by name. Temperature and score are fitted on ``validation``; both ``validation`` and ``test`` are
            measured.

    Raises:
        ArtifactError: the exported graph and the network disagree.
        OSError: there is no room for temporary files.
    """
    require_room(network)
    network.eval()
    seen, validation = (
        LabelledOutputs(*split, *logits_and_features(network, split.images)) for split in (train, splits["validation"])
    )
    score = fit_ood_score(seen, validation)
    content: dict[Format, bytes] = {
        "safetensors": weights_of(network),
        "detector.safetensors": score.to_bytes(),
        **build_graphs(network, score, train.images),
    }
    temperature = fit_temperature(validation.logits, validation.labels)
    artifact = Artifact(card.model_copy(update={"temperature": temperature, "files": {}}), content)
    check_parity(network, score, artifact)
    return without_poor_int8(with_figures(artifact, splits), MAX_INT8_LOSS)


def build_graphs(network: Network, score: OodScore, images: NDArray[np.uint8]) -> dict[Format, bytes]:
    """The passes from a network to its served graphs, in order.

    Args:
        network: as ``model.network.network_to_export`` returns it: with fused normalisations, in evaluation mode.
        score: the out-of-distribution score, which becomes part of the graphs.
        images: uint8 ``[M, 28, 28]``, training images; the first 500 calibrate the graph in 8 bits.
    """
    network = factorized(network)
    full = export_onnx(network, score)

    by_rows = to_row_convolution(network)
    quantized = quantize(export_onnx(by_rows, score), images[:CALIBRATION_IMAGES])
    return {"onnx": full, "int8.onnx": preoptimized(quantized)}


def logits_and_features(network: Network, images: NDArray[np.uint8], size: int = CHUNK) -> tuple[Floats, Floats]:
    """Images uint8 ``[N, *shape]``, computed by ``size`` at a time -> logits ``[N, 10]`` and features ``[N, F]``."""
    both = in_chunks(lambda part: torch.cat(network.outputs(part)[1:], dim=1), images, size=size)
    logits, features = np.split(both, [len(CLASSES)], axis=1)
    return logits, features


def without_poor_int8(artifact: Artifact, limit: float) -> Artifact:
    """Returns a measured artefact without the graph in 8 bits if that loses more than ``limit`` on a validation set."""
    card, content = artifact.card, dict(artifact.content)
    losses = [card.metrics[name].accuracy - int8.accuracy for name, int8 in card.int8_metrics.items() if name != "test"]
    if round(max(losses, default=0), 9) > limit:  # accuracies of 0.861 and 0.856 differ by a little more than 0.005
        del content["int8.onnx"]
        card = card.model_copy(update={"int8_metrics": {}})
    return Artifact(card, content)


def weights_of(network: Network) -> bytes:
    """Returns the weights of the network as safetensors."""
    return safetensors.torch.save({key: part.contiguous() for key, part in network.state_dict().items()})


def with_figures(artifact: Artifact, splits: dict[str, Split]) -> Artifact:
    """Returns the artefact with the figures of its graphs, measured on ``splits``, in the card."""
    card, cores = artifact.card, usable_cores()
    engine = OnnxEngine(artifact, cores)
    changes = {
        "metrics": _figures(engine, splits, card.temperature),
        "int8_metrics": {},
        "ood_auroc": measure_ood_auroc(engine, splits["test"].images, card.input),
        "histograms": _histograms(engine, splits["validation"], card.temperature),
    }
    if "int8.onnx" in artifact.content:
        changes["int8_metrics"] = _figures(Int8OnnxEngine(artifact, cores), splits, card.temperature)
    return Artifact(card.model_copy(update=changes), artifact.content)


def _histograms(engine: OnnxEngine, split: Split, temperature: float) -> dict[Feature, Histogram]:
    outputs = run_batches(engine, split.images)
    return reference_histograms(outputs.ood_scores, softmax(outputs.logits / temperature))


def _figures(engine: OnnxEngine, splits: dict[str, Split], temperature: float) -> dict[str, Report | Metrics]:
    return shortened({name: evaluate(engine, split, temperature) for name, split in splits.items()})


def shortened(reports: dict[str, Report]) -> dict[str, Report | Metrics]:
    """Returns the full report on ``test`` and ``photos``, the short one on other splits."""
    whole = ("test", "photos")
    return {name: one if name in whole else Metrics(**one.model_dump()) for name, one in reports.items()}


def export_onnx(network: Network, score: OodScore | PhotoOodScore | None = None) -> bytes:
    """Returns the ONNX graph from ``images`` uint8 ``[N, *shape]`` to ``log_probs``, ``logits`` and ``features``.

    With ``score``, ``ood_scores`` is the fourth output. The photo model has ``class_maps`` too.
    """
    module = ServingModule(network, score).eval()
    with torch.no_grad():  # layers may have another form for training
        program = torch.onnx.export(
            module,
            (torch.zeros(2, *network.input.shape, dtype=torch.uint8),),
            input_names=["images"],
            output_names=module.output_names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ArtifactError("PyTorch gave no ONNX program for this network.")
    content: bytes = _without_traces(program.model_proto).SerializeToString()
    return content


def preoptimized(graph: bytes) -> bytes:
    """Returns the graph after ONNX Runtime's "basic" optimisations, which are the same on every machine.

    They compute the same function, and a session of the result is created in 15 to 35 % less time.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        proto = onnx.load(path)
    used = {node.domain for node in proto.graph.node}
    for opset in [opset for opset in proto.opset_import if opset.domain not in used]:
        proto.opset_import.remove(opset)  # ONNX Runtime lists every set of operators that it knows
    content: bytes = proto.SerializeToString()
    return content


def _without_traces(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the exporter's stack traces, which contain paths of the machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto


def check_parity(network: Network, score: OodScore | PhotoOodScore, artifact: Artifact) -> None:
    """Compares logits, features and scores of the graph in full precision with those of the modules, on random images.

    Raises:
        ArtifactError: logits or scores differ by more than ``PARITY``.
    """
    images = np.random.default_rng(0).integers(0, 256, (32, *network.input.shape), np.uint8)
    found = OnnxEngine(artifact).run(images)
    with torch.inference_mode():
        _, *expected = ServingModule(network, score).eval()(torch.from_numpy(images))
    for name, ours, theirs in zip(EngineOutputs._fields, found, expected, strict=False):
        difference = float(np.abs(ours - theirs.numpy()).max())
        parity, rounding = (SCORE_PARITY, SCORE_ROUNDING) if name == "ood_scores" else (PARITY, ROUNDING)
        limit = max(parity, rounding * float(theirs.abs().max()))
        if not difference <= limit:
            raise ArtifactError(
                f"The exported graph's {name} differ from the network's by {difference:.2g} (limit {limit:.2g})."
            )


def require_room(network: Network) -> None:
    """Raises OSError if the temporary folder has too little room for the graphs of ``network``.

    ONNX Runtime does not notice a full disk: it writes half a graph and cannot read it.
    """
    folder, size = tempfile.gettempdir(), 10 * sum(tensor.nbytes for tensor in network.state_dict().values())
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)


def describe(network: Network, trainer: Trainer) -> ModelCard:
    """The card of ``network``, the fused one of what ``trainer`` has trained, without figures and files."""
    config = trainer.config
    return ModelCard(
        name=config.name,
        architecture=network.architecture,
        members=1 + len(trainer.snapshots),
        description=network.description,
        input=network.input,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        classes=CLASSES,
        temperature=1,
        recipe=config.recipe.model_dump(),
        training={
            "seed": config.seed,
            "epochs": trainer.epoch,
            **({"teachers": config.teachers} if config.teachers else {}),
            **({"photos": config.photos, "fold": config.fold, "left_out": config.left_out} if config.photos else {}),
            **({"processes": config.processes} if config.processes > 1 else {}),
            "precision": config.precision,
            "threads": config.threads,
            "device": config.device,
            **(config.machine or describe_machine(config.device)),
            "seconds": round(sum(metrics.seconds for metrics in trainer.history)),
            "date": datetime.now(UTC).date().isoformat(),
            "onnxruntime": version("onnxruntime"),
        },
        history=tuple(metrics.rounded() for metrics in trainer.history),
        data=config.data,
        metrics={},
    )
