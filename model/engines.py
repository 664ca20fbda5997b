"""Engines run a trained network: ONNX Runtime by default, in 8 bits or in full precision, PyTorch where it is chosen.

All take uint8 images. In full precision both give the same logits to 1e-4. Only TorchEngine imports torch, when made.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model.artifact import Artifact, Format, ModelCard, load_artifact, read_card
from model.cpu import has_int8
from model.errors import ArtifactCorrupt, ArtifactMissing
from model.installation import python_command, script

if TYPE_CHECKING:
    import torch

# The documented way to disable all telemetry (onnxruntime/Privacy.md). It must precede the import:
# onnxruntime.disable_telemetry_events() comes too late for the first event and for the identifier in the home folder.
os.putenv("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

EngineName = Literal["auto", "onnx", "onnx-int8", "torch"]
CLASS_MAPS = "class_maps"
"""Name of the output with class activation maps, which graphs of the photo model have."""
BATCH_SIZE = 64
"""Images per engine call where many are computed. Larger batches take hardly less time per image."""
BATCH_BYTES = 100_000
"""Most bytes of the images in one call. Photos are computed one by one: a batch is no faster and takes more memory."""


class ImageOutput(NamedTuple):
    """An engine's output for one image."""

    logits: NDArray[np.float32]
    """``[10]``"""
    ood_score: np.float32
    """See ``EngineOutputs``."""


class EngineOutputs(NamedTuple):
    """An engine's outputs for N images."""

    logits: NDArray[np.float32]
    """``[N, 10]``"""
    features: NDArray[np.float32]
    """``[N, F]``: the activations of the penultimate layer."""
    ood_scores: NDArray[np.float32]
    """``[N]``: 0 is typical, above 1 is out of the distribution."""

    def image_outputs(self) -> Iterator[ImageOutput]:
        """Iterates over the images."""
        return map(ImageOutput, self.logits, self.ood_scores)


class Engine(Protocol):
    """Anything that turns images into logits."""

    name: ClassVar[EngineName]

    def run(self, images: NDArray[np.uint8]) -> EngineOutputs:
        """Images uint8 ``[N, *shape]``, as the model's card declares them -> logits, features and scores."""
        ...

    def class_maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Returns how much each place adds to each logit, ``[N, 10, H, W]``; None if the model has no such maps."""
        ...


class OnnxEngine:
    """ONNX Runtime on the CPU. Its threads sleep between two calls."""

    name: ClassVar[EngineName] = "onnx"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        options, graph = _session_options(threads), self.formats[0]
        try:
            self.session = onnxruntime.InferenceSession(
                artifact.content[graph], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has one exception class per status code and no common base class.
            raise ArtifactCorrupt(f"{artifact.card.name}.{graph} is not a graph that ONNX Runtime can run.") from error
        self._outputs = {output.name for output in self.session.get_outputs()}
        if not self._outputs.issuperset(EngineOutputs._fields):
            raise _of_an_earlier_version(artifact, graph)
        _require_shape(artifact, graph, tuple(self.session.get_inputs()[0].shape[1:]))

    def run(self, images: NDArray[np.uint8]) -> EngineOutputs:
        """Images uint8 ``[N, *shape]``, as the model's card declares them -> logits, features and scores."""
        return EngineOutputs(*self.session.run(EngineOutputs._fields, {"images": images}))

    def class_maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Returns how much each place adds to each logit, ``[N, 10, H, W]``; None if the model has no such maps."""
        if CLASS_MAPS not in self._outputs:
            return None
        (maps,) = self.session.run([CLASS_MAPS], {"images": images})
        return maps  # type: ignore[no-any-return]


class Int8OnnxEngine(OnnxEngine):
    """The same over the graph in 8 bits: about half the time, other last digits, the same accuracy to .1 point."""

    name: ClassVar[EngineName] = "onnx-int8"
    formats: ClassVar[tuple[Format, ...]] = ("int8.onnx",)


class TorchEngine:
    """PyTorch, on a GPU where there is one. Needs the extra ``train``."""

    name: ClassVar[EngineName] = "torch"
    formats: ClassVar[tuple[Format, ...]] = ("safetensors", "detector.safetensors")

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        import torch

        from model.network import load_network
        from model.ood.score import load_score

        try:
            score = load_score(artifact.content["detector.safetensors"])
        except TypeError:
            raise _of_an_earlier_version(artifact, "detector.safetensors") from None
        torch.set_num_threads(threads)
        self.torch = torch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network, self.score = load_network(artifact).to(self.device), score.to(self.device)
        _require_shape(artifact, "safetensors", self.network.input.shape)

    def run(self, images: NDArray[np.uint8]) -> EngineOutputs:
        """Images uint8 ``[N, *shape]``, as the model's card declares them -> logits, features and scores."""
        with self.torch.inference_mode():
            batch = self._batch(images)
            _, logits, features = self.network.outputs(batch)
            scores = self.score(batch, logits, features)
        return EngineOutputs(*(values.cpu().numpy() for values in (logits, features, scores)))

    def class_maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Returns how much each place adds to each logit, ``[N, 10, H, W]``; None if the model has no such maps."""
        with self.torch.inference_mode():
            maps = self.network.class_maps(self._batch(images))
        return None if maps is None else maps.cpu().numpy()

    def _batch(self, images: NDArray[np.uint8]) -> "torch.Tensor":
        # A copy: torch warns about the read-only arrays that come from bytes.
        return self.torch.from_numpy(np.array(images)).to(self.device)


def _require_shape(artifact: Artifact, file: Format, shape: tuple[int, ...]) -> None:
    name, declared = artifact.card.name, artifact.card.input.shape
    if declared != shape:
        raise ArtifactCorrupt(
            f"{name}.json declares an input of shape {declared}, but {name}.{file} takes {shape}: restore the files of "
            "this model from a release or a backup."
        )


def _of_an_earlier_version(artifact: Artifact, file: Format) -> ArtifactCorrupt:
    name, of_photos = artifact.card.name, artifact.card.input.convention == "photo"
    remedy = (
        f"from its run by {python_command()} {script('train')} --resume RUN, or restore the files of a release"
        if of_photos
        else f"by {python_command()} {script('export')} {name}"
    )
    return ArtifactCorrupt(f"{name}.{file} is of an earlier version: export it again {remedy}.")


_ENGINES: dict[EngineName, type[OnnxEngine] | type[TorchEngine]] = {
    engine.name: engine for engine in (OnnxEngine, Int8OnnxEngine, TorchEngine)
}


def choose_engine(asked: EngineName, card: ModelCard) -> EngineName:
    """What ``auto`` is for the artefact and this CPU; any other name is kept.

    It is 8 bits where the CPU has instructions for them. They win on every CPU with AVX2 or better that was measured
    (benchmarks/results/engines.md). On arm64 nothing was measured; its instructions (SDOT, I8MM) do the same work.

    Raises:
        ArtifactMissing: 8 bits are asked for and the artefact has no such graph.
    """
    has_graph = Int8OnnxEngine.formats[0] in card.files
    if asked == "onnx-int8" and not has_graph:
        raise ArtifactMissing(f"{card.name} has no graph in 8 bits: set the engine to auto or onnx.")
    if asked != "auto":
        return asked
    return "onnx-int8" if has_graph and has_int8() else "onnx"


def load_for_engine(engine: EngineName, folder: Path, name: str) -> Artifact:
    """The artefact ``name`` with the files that ``engine`` needs; raises what ``load_artifact`` does."""
    return load_artifact(folder, name, _ENGINES[choose_engine(engine, read_card(folder, name))].formats)


def create_engine(name: EngineName, artifact: Artifact, threads: int = 1) -> Engine:
    """The engine ``name`` over ``artifact``, with ``threads`` compute threads.

    Raises:
        ArtifactCorrupt: the engine cannot read the artefact.
        ArtifactMissing: the artefact has no graph of that kind.
        ImportError: the torch engine is asked for and torch is not installed.
    """
    return _ENGINES[choose_engine(name, artifact.card)](artifact, threads)


def images_per_call(shape: Sequence[int]) -> int:
    """Returns how many images of this shape an engine should be given at once."""
    return max(1, min(BATCH_SIZE, BATCH_BYTES // math.prod(shape)))


def batches(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Splits images ``[N, *shape]`` into consecutive batches of ``images_per_call``; one empty batch if N is 0."""
    size = images_per_call(images.shape[1:])
    return (np.ascontiguousarray(images[i : i + size]) for i in range(0, max(1, len(images)), size))


def run_batches(
    engine: Engine,
    images: NDArray[np.uint8],
    *,
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda batch: batch,
    progress: Callable[[int], object] = lambda _: None,
) -> EngineOutputs:
    """Runs any number of images in batches.

    Args:
        engine: the engine.
        images: uint8 ``[N, *shape]``, as the model's card declares them, or what ``prepare`` makes of them.
        prepare: called with each batch before the engine.
        progress: called after each batch with the number of its images.
    """
    outputs = []
    for batch in batches(images):
        outputs.append(engine.run(prepare(batch)))
        progress(len(batch))
    if len(outputs) == 1:
        return outputs[0]
    return EngineOutputs(*(np.concatenate(parts) for parts in zip(*outputs, strict=True)))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities float32 ``[N, 10]`` of logits ``[N, 10]``."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities float32 ``[N, 10]`` of logits ``[N, 10]``, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A pattern keeps one more block of memory for every batch size that was ever run.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
