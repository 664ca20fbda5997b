"""Reads and writes requests and responses of the Open Inference Protocol.

Raises InvalidInference of ``app.problems``, which becomes a response with status 400.

Sources: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; the binary tensor and the
classification extension as Triton Inference Server documents them (docs/protocol).
"""

import binascii
import json
import math
import struct
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from app.problems import InvalidInference, TooManyFiles
from app.validation import plain_message

DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
OUTPUTS = {"log_probs": "FP32", "logits": "FP32", "probabilities": "FP32", "label": "BYTES"}
"""The outputs of a model, and their types."""
Array = NDArray[Any]
MAX_ELEMENTS = 2**40
Word = Annotated[str, Field(max_length=256)]
"""Text that errors repeat. gRPC's clients refuse errors of more than some kilobytes."""


class InputTensor(BaseModel):
    """A tensor of the request; its data are in ``data``, or binary after the JSON."""

    name: Word
    shape: list[int] = Field(max_length=8)
    datatype: Word
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that the client requests."""

    name: str
    parameters: dict[str, Any] = {}


class InferenceRequest(BaseModel):
    """The JSON part of a request."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(max_length=8)
    outputs: list[RequestedOutput] | None = Field(None, max_length=6)

    def without_data(self) -> "InferenceRequest":
        """Returns the request without its inputs, which may be large."""
        return self.model_copy(update={"inputs": []})

    def wants_binary(self, output: RequestedOutput) -> bool:
        """Whether ``output`` is sent binary: by its own parameter, else by the request's."""
        return bool(output.parameters.get("binary_data", self.parameters.get("binary_data_output", False)))


class OutputTensor(BaseModel):
    """A tensor of the response."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


@dataclass(frozen=True)
class Output:
    """An output to send: numbers as an array, BYTES as an array of ``bytes`` objects."""

    name: str
    values: Array
    binary: bool

    @property
    def datatype(self) -> str:
        """The datatype of the values."""
        return "BYTES" if self.values.dtype == object else "FP32"


def parse_request(body: bytes, json_length: int | None, max_images: int) -> tuple[InferenceRequest, dict[str, Array]]:
    """Returns the JSON part of a request body and its input tensors by name.

    ``json_length`` is the header Inference-Header-Content-Length: the JSON ends and binary tensors begin there.
    BYTES become arrays of ``bytes`` objects; in JSON they are base64.

    Raises:
        InvalidInference, TooManyFiles: what is wrong with it.
    """
    if json_length is not None and not 0 <= json_length <= len(body):
        raise InvalidInference(f"Inference-Header-Content-Length is {json_length}, but the body has {len(body)} bytes.")
    with one_sentence():
        request = InferenceRequest.model_validate_json(body[:json_length])
    check_inputs(request.inputs, max_images)
    return request, dict(
        _tensors(request.inputs, memoryview(body)[len(body) if json_length is None else json_length :])
    )


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turns pydantic's error into InvalidInference."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "body"
        raise InvalidInference(f"This is not an inference request: {where}: {plain_message(problem['msg'])}.") from None


def _tensors(inputs: Sequence[InputTensor], binary: memoryview) -> Iterator[tuple[str, Array]]:
    offset = 0
    for tensor in inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            yield tensor.name, _from_json(tensor)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(binary) - offset:
            raise InvalidInference(
                f"{tensor.name}: binary_data_size {size!r:.40} does not match the bytes after the JSON."
            )
        yield tensor.name, from_binary(tensor, binary[offset : offset + size])
        offset += size
    if offset != len(binary):
        raise InvalidInference(f"{len(binary) - offset} bytes follow the last binary tensor.")


def _count(tensor: InputTensor) -> int:
    if min(tensor.shape, default=1) < 0:
        raise InvalidInference(f"{tensor.name}: the shape {tensor.shape!r:.80} has a negative dimension.")
    if math.prod(filter(None, tensor.shape)) > MAX_ELEMENTS:  # NumPy refuses such a shape even with a dimension of 0
        raise InvalidInference(f"{tensor.name}: the shape {tensor.shape!r:.80} is too large.")
    return math.prod(tensor.shape)


def check_inputs(inputs: Sequence[InputTensor], max_images: int) -> None:
    """Raises InvalidInference if two have the same name, and TooManyFiles if one has more than ``max_images``."""
    if len({tensor.name for tensor in inputs}) < len(inputs):
        raise InvalidInference("Two inputs have the same name: send each tensor once.")
    for tensor in inputs:
        _check_images(tensor, max_images)


def _check_images(tensor: InputTensor, most: int) -> None:
    images = _count(tensor) if tensor.datatype == "BYTES" else next(iter(tensor.shape), 1)
    if images > most:
        raise TooManyFiles(f"The limit is {most} images in one request: send several requests.")


def _dtype(tensor: InputTensor) -> np.dtype[Any]:
    if tensor.datatype not in DTYPES:
        raise InvalidInference(f"{tensor.name}: the datatype {tensor.datatype!r:.40} is unknown.")
    return np.dtype(DTYPES[tensor.datatype])


def _from_json(tensor: InputTensor) -> Array:
    if tensor.data is None:
        raise InvalidInference(f"{tensor.name}: data or binary_data_size is missing.")
    try:
        if tensor.datatype == "BYTES":
            return from_elements(tensor, [b64decode(text, validate=True) for text in _flat(tensor.data)])
        return from_numbers(tensor, tensor.data)
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError) as error:
        raise InvalidInference(
            f"{tensor.name}: the data are not {tensor.datatype} (BYTES are base64 in JSON)."
        ) from error


def from_numbers(tensor: InputTensor, numbers: Sequence[Any]) -> Array:
    """Returns the tensor of these numbers, in lists or not; raises ValueError or TypeError if they are none."""
    # Of words NumPy would make an array in which each takes as much as the longest. Iterators take 32 dimensions only.
    items = np.array(numbers, object).ravel()
    types = set(map(type, items))
    if not types <= {bool if tensor.datatype == "BOOL" else float, int}:
        raise TypeError
    is_float = tensor.datatype.startswith("FP") or float in types
    values = items.astype(np.float64) if is_float else np.array(items.tolist(), None if items.size else np.int64)
    return _shaped(_cast(values, tensor), tensor)


def _cast(values: Array, tensor: InputTensor) -> Array:
    dtype = _dtype(tensor)
    if dtype.kind in "iu" and values.size and not _fits(values, dtype):
        raise InvalidInference(f"{tensor.name}: the data are not whole numbers that fit into {tensor.datatype}.")
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _fits(values: Array, dtype: np.dtype[Any]) -> bool:
    """Returns whether all are whole numbers in the range of an integer type."""
    limits = np.iinfo(dtype)
    is_whole = values.dtype.kind in "iu" or bool((values == np.trunc(values)).all())
    return is_whole and bool(limits.min <= values.min() and values.max() <= limits.max)


def from_binary(tensor: InputTensor, raw: memoryview) -> Array:
    """Returns the tensor with these binary data, which numbers share."""
    if tensor.datatype == "BYTES":
        expected = _count(tensor)
        elements = list(islice(_split_bytes(raw, tensor.name), expected + 1))
        if len(elements) > expected:
            raise InvalidInference(f"{tensor.name}: there are more elements than in the shape {tensor.shape}.")
        return from_elements(tensor, elements)
    dtype = _dtype(tensor)
    if len(raw) != _count(tensor) * dtype.itemsize:
        raise InvalidInference(f"{tensor.name}: {len(raw)} bytes are not a {tensor.datatype} tensor of {tensor.shape}.")
    return np.frombuffer(raw, dtype).reshape(tensor.shape)


def _split_bytes(raw: memoryview, name: str) -> Iterator[bytes]:
    """Yields BYTES elements: each is a little-endian uint32 length followed by as many bytes."""
    offset = 0
    while offset < len(raw):
        if offset + 4 > len(raw):
            raise InvalidInference(f"{name}: the length of a BYTES element is truncated.")
        (length,) = struct.unpack_from("<I", raw, offset)
        offset += 4 + length
        if offset > len(raw):
            raise InvalidInference(f"{name}: a BYTES element is truncated.")
        yield bytes(raw[offset - length : offset])


def from_elements(tensor: InputTensor, elements: Sequence[bytes]) -> Array:
    """Returns the BYTES tensor of these elements."""
    values = np.empty(len(elements), object)
    values[:] = elements
    return _shaped(values, tensor)


def _shaped(values: Array, tensor: InputTensor) -> Array:
    if values.size != _count(tensor):
        raise InvalidInference(f"{tensor.name}: {values.size} values are not a tensor of {tensor.shape}.")
    return values.reshape(tensor.shape)


def _flat(data: list[Any]) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def encode_response(head: dict[str, Any], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """Returns the response's body, and the length of its JSON if binary tensors follow, else None."""
    tensors, blobs = [], []
    for output in outputs:
        blob = to_binary(output.values) if output.binary else None
        tensors.append(_describe(output, blob).model_dump(exclude_none=True))
        blobs.append(blob or b"")
    header = json.dumps(head | {"outputs": tensors}, separators=(",", ":")).encode()
    binary = any(output.binary for output in outputs)
    return header + b"".join(blobs), len(header) if binary else None


def _describe(output: Output, blob: bytes | None) -> OutputTensor:
    tensor = OutputTensor(name=output.name, shape=list(output.values.shape), datatype=output.datatype)
    if blob is not None:
        tensor.parameters = {"binary_data_size": len(blob)}
    elif output.datatype == "BYTES":
        tensor.data = [element.decode() for element in output.values.ravel()]
    else:
        tensor.data = output.values.ravel().tolist()
    return tensor


def to_binary(values: Array) -> bytes:
    """Returns numbers as little-endian FP32, and BYTES elements each after its length."""
    if values.dtype == object:
        return b"".join(struct.pack("<I", len(element)) + element for element in values.ravel())
    return values.astype("<f4").tobytes()
