"""MLServer with the committed ONNX graph in a custom runtime; it speaks V2 JSON, so it is sent the pixels."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

GRAPH = Path(__file__).parents[2] / "model" / "weights" / "fashionnet.onnx"


class FashionNet(MLModel):
    """Log-probabilities of UINT8 images."""

    async def load(self) -> bool:
        """Make the session, on one thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(GRAPH, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request, or a batch that MLServer gathered."""
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.uint8)
        (log_probs,) = self.session.run(["log_probs"], {"images": images})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("log_probs", log_probs)])


def configure(folder: Path) -> None:
    """Write the settings that MLServer starts from."""
    port = int(os.environ["PORT"])
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    settings = {"host": "127.0.0.1", "parallel_workers": 0} | ports
    model = {"name": "fashionnet", "implementation": "benchmarks.contenders.ml.FashionNet"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model | {"max_batch_size": 16, "max_batch_time": 0.002}))


if __name__ == "__main__":
    import sys
    import tempfile

    folder = Path(tempfile.mkdtemp())
    configure(folder)
    os.execv(Path(sys.executable).with_name("mlserver"), ["mlserver", "start", str(folder)])  # noqa: S606
