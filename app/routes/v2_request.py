"""From the body of an inference request to its images; a pure function, which a helper process can run.

Raises InvalidInference, BodyTooLarge and TooManyFiles of ``app.problems``.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.problems import BodyTooLarge, InvalidInference
from app.routes.v2_codec import InferenceRequest, parse_request
from model.inputs import ModelInput
from model.preprocessing import is_native_png

InputImages = NDArray[np.uint8] | list[bytes]
"""Images ``[N, *shape]`` as the model takes them, or encoded pictures."""
QUICK_BYTES = 32_768
"""JSON up to this size takes at most some milliseconds to parse."""
MAX_MEMBERS = 16
"""Most members of a gzip body. What follows each of them is copied, so thousands of empty ones would take seconds."""


class Body(NamedTuple):
    """The body of a request and the headers that say what it is."""

    content: bytes
    encoding: str
    """The Content-Encoding in lower case."""
    json_length: int | None
    """The header Inference-Header-Content-Length."""

    @property
    def is_quick(self) -> bool:
        """Whether reading it takes little enough time for the event loop."""
        json_bytes = len(self.content) if self.json_length is None else self.json_length
        return self.encoding == "identity" and json_bytes <= QUICK_BYTES


class InferenceLimits(NamedTuple):
    """The largest request."""

    json_bytes: int
    """Of the JSON; of the whole body if that is compressed."""
    images: int


def read_inference(
    body: Body, model_input: ModelInput, limits: InferenceLimits
) -> tuple[InferenceRequest, InputImages]:
    """Returns the request without its data, and its images; JSON of length 0 means that the body is one image."""
    content = _decompress(body, limits.json_bytes)
    if body.json_length == 0:
        requested = InferenceRequest(inputs=[], parameters={"binary_data_output": True})
        is_pixels = len(content) == math.prod(model_input.shape) and not is_native_png(content)
        return requested, np.frombuffer(content, np.uint8).reshape(1, *model_input.shape) if is_pixels else [content]
    json_bytes = len(content) if body.json_length is None else body.json_length
    if json_bytes > limits.json_bytes:
        raise BodyTooLarge(f"The limit is {limits.json_bytes:,} bytes of JSON: send the tensors binary.")
    requested, tensors = parse_request(content, body.json_length, limits.images)
    return requested.without_data(), images_of(tensors, model_input)


def _decompress(body: Body, max_bytes: int) -> bytes:
    """Returns the body without its Content-Encoding; raises BodyTooLarge if it exceeds ``max_bytes``."""
    if body.encoding == "identity":
        return body.content
    if body.encoding not in ("gzip", "deflate"):
        raise InvalidInference(
            f"The content encoding {body.encoding!r:.40} is not supported: send gzip, deflate or neither."
        )
    try:
        plain, is_complete = _unpack(body.content, max_bytes + 1)
    except zlib.error:
        raise InvalidInference(f"The body is not {body.encoding}.") from None
    if len(plain) > max_bytes:
        raise BodyTooLarge(f"The body unpacks to more than {max_bytes:,} bytes: send several requests.")
    if not is_complete:
        raise InvalidInference(f"The {body.encoding} body is truncated.")
    return plain


def _unpack(packed: bytes, most: int) -> tuple[bytes, bool]:
    """Returns at most ``most`` bytes of what was packed, and whether its end is there; gzip may have members."""
    plain, is_complete = b"", False
    for _ in range(MAX_MEMBERS):
        unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, by its header
        plain += unpacker.decompress(packed, most - len(plain))
        packed, is_complete = unpacker.unused_data, unpacker.eof
        if not packed or len(plain) >= most:
            return plain, is_complete
    raise InvalidInference(f"The body has more than {MAX_MEMBERS} gzip members: send one.")


def images_of(tensors: Mapping[str, NDArray[Any]], model_input: ModelInput) -> InputImages:
    """Returns the images of a request; raises InvalidInference if it has other tensors, or ones of another shape."""
    if list(tensors) != ["images"]:
        raise InvalidInference(f"The one input is 'images'; the request has {list(tensors)!r:.80}.")
    values = tensors["images"]
    if values.dtype == object:
        return list(values.ravel())
    shape = model_input.shape
    shapes = [shape] if model_input.channels > 1 else [shape, (1, *shape)]
    if values.shape[1:] not in shapes:
        accepted = " nor ".join(str([-1, *accepted]) for accepted in shapes)
        raise InvalidInference(
            f"images: the shape {list(values.shape)} is {'neither' if len(shapes) > 1 else 'not'} {accepted}."
        )
    if values.dtype not in (np.uint8, np.float32):
        raise InvalidInference(f"images: the datatypes are UINT8, FP32 and BYTES, not {values.dtype}.")
    if values.dtype == np.float32 and not ((values >= 0) & (values <= 255)).all():
        raise InvalidInference("images: FP32 values must be pixels: send numbers from 0 to 255.")
    return values.round().astype(np.uint8).reshape(-1, *shape)
