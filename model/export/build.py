"""From a trained network to an artefact that is served."""

import logging
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
from model.engines import Int8OnnxEngine, OnnxEngine, run_batches
from model.errors import ArtifactError
from model.evaluation.ood_sets import measure_detector
from model.evaluation.report import evaluate
from model.export.low_rank import taken_apart
from model.export.quantize import CALIBRATION_IMAGES, quantize
from model.export.row_convolution import over_rows
from model.metrics import Metrics, Report
from model.network import Network, NetworkOutputs
from model.ood.fit import Seen, fit_detector, fit_temperature
from model.ood.onnx_graph import with_detector
from model.training.loop import Trainer, describe_machine

# The exporter warns that it will not translate torchvision's operators, which nothing here uses.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)

PARITY = 1e-4
"""The most that the exported graph's logits may differ from the network's."""
ROUNDING = 1e-6
"""The same in units of the largest: some roundings of float32, for a network whose training has hardly begun."""


class _ServingGraph(nn.Module):
    """The network's three outputs as the graph's three outputs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> NetworkOutputs:
        return self.network.outputs(images)


INT8_LOSS = 0.001
"""The most validation accuracy that the graph in 8 bits may lose; past it there is none."""


def export(network: Network, card: ModelCard, train: Split, splits: dict[str, Split]) -> Artifact:
    """The trained network as an artefact in memory, its card with the figures measured on the exported graphs.

    Args:
        network: on the CPU.
        card: what is known of it beside the figures.
        train: the images that it was trained on; the first of them calibrate the graph in 8 bits.
        splits: what it is measured on, by name: ``validation``, which temperature and detector are fitted on, and
            ``test``.

    Raises:
        ArtifactError: the exported graph and the network disagree.
    """
    network.eval()
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    served = taken_apart(network)
    graph = export_onnx(served)
    bare = OnnxEngine(Artifact(card.model_copy(update={"files": {}}), {"onnx": graph}), usable_cores())
    _check_parity(network, bare)
    seen, validation = (Seen(split, run_batches(bare, split.images)) for split in (train, splits["validation"]))
    detector = fit_detector(seen, validation)
    content: dict[Format, bytes] = {
        "safetensors": safetensors.torch.save(weights),
        "onnx": with_detector(graph, detector),
        "int8.onnx": rewritten(with_detector(export_int8(served, train.images), detector)),
        "detector.safetensors": detector.to_bytes(),
    }
    temperature = fit_temperature(validation.outputs.logits, validation.split.labels)
    return _without_poor_int8(Artifact(card.model_copy(update={"temperature": temperature}), content), splits)


def _without_poor_int8(artifact: Artifact, splits: dict[str, Split]) -> Artifact:
    """The artefact with its figures in the card, and without the graph in 8 bits where that loses too much."""
    card, content = measure(artifact, splits), dict(artifact.content)
    if card.int8_metrics["validation"].accuracy < card.metrics["validation"].accuracy - INT8_LOSS:
        del content["int8.onnx"]
        card = card.model_copy(update={"int8_metrics": {}})
    return Artifact(card, content)


def measure(artifact: Artifact, splits: dict[str, Split]) -> ModelCard:
    """The card with the figures of the graphs that ``artifact`` holds, measured anew on ``splits``."""
    card, cores = artifact.card, usable_cores()
    engine = OnnxEngine(artifact, cores)
    changes = {
        "metrics": _measure(engine, splits, card.temperature),
        "int8_metrics": {},
        "ood_auroc": measure_detector(engine, splits["test"].images),
    }
    if "int8.onnx" in artifact.content:
        changes["int8_metrics"] = _measure(Int8OnnxEngine(artifact, cores), splits, card.temperature)
    return card.model_copy(update=changes)


def _measure(engine: OnnxEngine, splits: dict[str, Split], temperature: float) -> dict[str, Report | Metrics]:
    """All figures of the test images, the short ones of other splits."""
    reports = {name: evaluate(engine, split, temperature) for name, split in splits.items()}
    return {name: full if name == "test" else Metrics(**full.model_dump()) for name, full in reports.items()}


def export_onnx(network: Network) -> bytes:
    """The network as an ONNX graph: ``images`` uint8 ``[N, 28, 28]`` -> ``log_probs``, ``logits``, ``features``."""
    graph = _ServingGraph(network).eval()
    program = torch.onnx.export(
        graph,
        (torch.zeros(2, 28, 28, dtype=torch.uint8),),
        input_names=["images"],
        output_names=list(NetworkOutputs._fields),
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise ArtifactError("PyTorch gave no ONNX program for this network.")
    content: bytes = _without_traces(program.model_proto).SerializeToString()
    return content


def export_int8(network: Network, images: NDArray[np.uint8]) -> bytes:
    """The same graph in 8 bits, calibrated on the first of ``images`` uint8 ``[M, 28, 28]``, training images."""
    return quantize(export_onnx(over_rows(network)), images[:CALIBRATION_IMAGES])


def rewritten(graph: bytes) -> bytes:
    """A graph in 8 bits as ONNX Runtime rewrites it first on whatever machine ("basic"): the same function.

    A session of this one is made sooner. Later rewritings depend on the CPU.
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
        proto.opset_import.remove(opset)  # it declares every set of operators that it knows itself
    content: bytes = proto.SerializeToString()
    return content


def _without_traces(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes beside the graph: stack traces, with the paths of the machine it ran on."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return proto


def _check_parity(network: Network, engine: OnnxEngine) -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 28, 28), np.uint8)
    with torch.inference_mode():
        expected = network.outputs(torch.from_numpy(images)).logits.numpy()
    difference = float(np.abs(engine.run(images).logits - expected).max())
    limit = max(PARITY, ROUNDING * float(np.abs(expected).max()))
    if not difference <= limit:
        raise ArtifactError(
            f"The exported graph's logits differ from the network's by {difference:.2g} (limit {limit:.2g})."
        )


def describe(network: Network, trainer: Trainer) -> ModelCard:
    """The card of ``network``, the fused one of what ``trainer`` has trained, without figures and files."""
    config = trainer.config
    return ModelCard(
        name=config.name,
        architecture=network.architecture,
        members=1 + len(trainer.snapshots),
        description=network.description,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        classes=CLASSES,
        recipe=config.recipe.model_dump(),
        training={
            "seed": config.seed,
            "epochs": trainer.epoch,
            **({"teachers": config.teachers} if config.teachers else {}),
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
