"""Engines run a trained network: ONNX Runtime by default, PyTorch where it is chosen.

Both take uint8 images and give the same logits to 1e-4. Only TorchEngine imports torch, when it is made.
"""

import os
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model.artifact import Artifact, Format
from model.errors import ArtifactCorrupt

# ONNX Runtime's own builds report to their maker unless told otherwise before they load (its Privacy.md).
os.putenv("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

EngineName = Literal["onnx", "torch"]


class EngineOutputs(NamedTuple):
    """What an engine says of N images."""

    logits: NDArray[np.float32]
    """``[N, 10]``"""
    features: NDArray[np.float32]
    """``[N, F]``, the penultimate activations."""


class Engine(Protocol):
    """Anything that turns images into logits."""

    def run(self, images: NDArray[np.uint8]) -> EngineOutputs:
        """Images uint8 ``[N, 28, 28]`` in the data set's convention -> logits and features."""
        ...


class OnnxEngine:
    """ONNX Runtime on the CPU. Its threads sleep between two calls."""

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        options = _session_options(threads)
        try:
            self.session = onnxruntime.InferenceSession(
                artifact.content["onnx"], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has an exception class a status, without a common base
            raise ArtifactCorrupt(f"{artifact.card.name}.onnx is not a graph that ONNX Runtime can run.") from error

    def run(self, images: NDArray[np.uint8]) -> EngineOutputs:
        """Images uint8 ``[N, 28, 28]`` -> logits and features."""
        return EngineOutputs(*self.session.run(["logits", "features"], {"images": images}))


class TorchEngine:
    """PyTorch, on a GPU where there is one. Needs the extra ``train``."""

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        import safetensors.torch
        import torch

        from model.network import ARCHITECTURES, create_network

        if artifact.card.architecture not in ARCHITECTURES:
            raise ArtifactCorrupt(f"This version knows no architecture {artifact.card.architecture!r}.")
        torch.set_num_threads(threads)
        self.torch = torch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = create_network(artifact.card.architecture)
        self.network.load_state_dict(safetensors.torch.load(artifact.content["safetensors"]))
        self.network.to(self.device).eval()

    def run(self, images: NDArray[np.uint8]) -> EngineOutputs:
        """Images uint8 ``[N, 28, 28]`` -> logits and features."""
        with self.torch.inference_mode():
            # A copy: torch warns about the read-only arrays that come from bytes.
            batch = self.torch.from_numpy(np.array(images)).to(self.device)
            outputs = self.network.outputs(batch)
        return EngineOutputs(outputs.logits.cpu().numpy(), outputs.features.cpu().numpy())


ENGINES: dict[EngineName, type[OnnxEngine] | type[TorchEngine]] = {"onnx": OnnxEngine, "torch": TorchEngine}
ENGINE_FORMATS: dict[EngineName, Format] = {"onnx": "onnx", "torch": "safetensors"}


def create_engine(name: EngineName, artifact: Artifact, threads: int = 1) -> Engine:
    """The engine ``name`` over ``artifact``, with ``threads`` compute threads.

    Raises:
        ArtifactCorrupt: the engine cannot read the artefact.
        ImportError: the torch engine is asked for and torch is not installed.
    """
    return ENGINES[name](artifact, threads)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities float32 ``[N, 10]`` of logits ``[N, 10]``."""
    return np.exp(log_softmax(logits))


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
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
