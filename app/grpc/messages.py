"""The messages of gRPC: from an encoded request to its tensors, and from outputs to a response.

``open_inference.proto`` describes them; ``messages.binpb`` is what protoc makes of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from app.problems import InvalidInference
from app.routes import v2_codec as codec
from model import ModelCard

_POOL = DescriptorPool()  # not the default one: Triton's client has messages of the same names
for _file in FileDescriptorSet.FromString(Path(__file__).with_name("messages.binpb").read_bytes()).file:
    _POOL.Add(_file)
CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}
"""The fields of the tensors that are not raw, by datatype."""


class InferenceCall(NamedTuple):
    """A request to infer."""

    model: str
    version: str | None
    requested: codec.InferenceRequest
    """Without the data of its inputs."""
    tensors: dict[str, codec.Array]
    raw: bool
    """Whether the tensors came in ``raw_input_contents``; then the outputs are raw too."""


def message(name: str, /, **fields: Any) -> Any:
    """Returns a message of the protocol."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))(**fields)


def decode(name: str, content: bytes) -> Any:
    """Returns the message that ``content`` encodes; raises InvalidInference if it encodes none."""
    decoded = message(name)
    try:
        decoded.ParseFromString(content)
    except DecodeError:
        raise InvalidInference(f"This is not a {name}: encode the request as the protocol says.") from None
    return decoded


def read_call(content: bytes, max_images: int) -> InferenceCall:
    """Returns the request; raises InvalidInference or TooManyFiles. A pure function, for a helper process too."""
    request = decode("ModelInferRequest", content)
    raw = list(request.raw_input_contents)
    if raw and (len(raw) != len(request.inputs) or any(tensor.HasField("contents") for tensor in request.inputs)):
        raise InvalidInference("raw_input_contents does not fit the inputs: send one for each, and no other contents.")
    with codec.one_sentence():
        requested = codec.InferenceRequest.model_validate(_as_json(request))
    codec.check_inputs(requested.inputs, max_images)
    tensors = {}
    for tensor, data in zip(requested.inputs, raw or [each.contents for each in request.inputs], strict=True):
        tensors[tensor.name] = codec.from_binary(tensor, memoryview(data)) if raw else _from_contents(tensor, data)
    return InferenceCall(
        request.model_name, request.model_version or None, requested.without_data(), tensors, bool(raw)
    )


def _as_json(request: Any) -> dict[str, Any]:
    """Returns what the request would be as JSON, without data; of inputs and outputs at most one too many."""
    inputs = [{"name": each.name, "shape": list(each.shape), "datatype": each.datatype} for each in request.inputs[:9]]
    outputs = [
        {"name": each.name, "parameters": {key: value.int64_param for key, value in each.parameters.items()}}
        for each in request.outputs[:7]
    ]
    return {"id": request.id, "inputs": inputs, "outputs": outputs or None}


def _from_contents(tensor: codec.InputTensor, contents: Any) -> codec.Array:
    if tensor.datatype not in CONTENTS:
        raise InvalidInference(f"{tensor.name}: the datatypes are UINT8, FP32 and BYTES, not {tensor.datatype!r:.40}.")
    values = list(getattr(contents, CONTENTS[tensor.datatype]))
    return codec.from_elements(tensor, values) if tensor.datatype == "BYTES" else codec.from_numbers(tensor, values)


def response_of(call: InferenceCall, card: ModelCard, outputs: Sequence[codec.Output]) -> Any:
    """Returns the message with these outputs."""
    sent = message("ModelInferResponse", model_name=card.name, model_version=card.version, id=call.requested.id)
    for output in outputs:
        tensor = sent.outputs.add(name=output.name, datatype=output.datatype, shape=output.values.shape)
        if call.raw:
            sent.raw_output_contents.append(codec.to_binary(output.values))
        else:
            getattr(tensor.contents, CONTENTS[output.datatype]).extend(output.values.ravel().tolist())
    return sent
