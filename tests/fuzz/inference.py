"""Hostile requests of the Open Inference Protocol: JSON, binary tensors and content encodings."""

import gzip
import json
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from tests.fuzz.bombs import zeros
from tests.fuzz.mutators import mutate_bytes, mutate_parts
from tests.fuzz.pictures import mutate_picture
from tests.fuzz.requests import Request, encoded, inference, tensor
from tests.pictures import grey_png

NUMBERS: Sequence[Any] = (0, -1, 1, 7, 255, 256, 2**31, 2**53 + 1, 2**63, 2**64, -(2**64), 10**400, 0.5, 1e308, 1e-320,
                          float("nan"), float("inf"), True, None)  # fmt: skip
WORDS: Sequence[str] = ("", "images", "UINT8", "FP32", "BYTES", "BOOL", "INT64", "FP64", "FP16", "x" * 5000, "\0", "é",
                        "\ud800", "\u202e", "🧥", "label", "AAAA", "!", "NaN", "binary_data_size")  # fmt: skip


def invent_value(rng: random.Random) -> Any:
    """Returns a JSON value that hardly any place expects."""
    match rng.randrange(6):
        case 0:
            return rng.choice(WORDS)
        case 1:
            return [rng.choice(NUMBERS)] * rng.choice((0, 1, 3, 784, 2000))
        case 2:
            return {rng.choice(WORDS): rng.choice(NUMBERS)}
        case 3:
            value: Any = []
            for _ in range(rng.choice((2, 9, 40, 600))):
                value = [value]
            return value
        case _:
            return rng.choice(NUMBERS)


def mutate_json(rng: random.Random, value: Any) -> Any:
    """Returns a JSON value with one node replaced, removed or added, on a random path."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        return _mutate_object(rng, value)
    if isinstance(value, list) and value and rng.random() < 0.7:
        if rng.random() < 0.2:
            return mutate_parts(rng, value, lambda: invent_value(rng))
        index = rng.randrange(len(value))
        return [*value[:index], mutate_json(rng, value[index]), *value[index + 1 :]]
    return invent_value(rng)


def _mutate_object(rng: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    key = rng.choice(list(value))
    match rng.randrange(8):
        case 0:
            return {name: item for name, item in value.items() if name != key}
        case 1:
            return value | {rng.choice(WORDS): invent_value(rng)}
        case _:
            return value | {key: mutate_json(rng, value[key])}


SIZES = (0, 1, 2, 28, 784, -1, 2**31, 2**40, 2**63)


def _base(rng: random.Random) -> dict[str, Any]:
    """Returns a request that is right, or of another shape and datatype than its data."""
    request: dict[str, Any] = {"id": "x", "parameters": {}, "inputs": [tensor()]}
    if rng.random() < 0.4:
        shape = [rng.choice(SIZES) for _ in range(rng.randrange(6))]
        request["inputs"] = [tensor(shape=shape, datatype=rng.choice(("UINT8", "FP32", "INT64", "BYTES")), data=[])]
    if rng.random() < 0.5:
        parameters = {"classification": rng.choice(NUMBERS), "binary_data": rng.random() < 0.5}
        request["outputs"] = [{"name": rng.choice(("label", "logits", "x")), "parameters": parameters}]
    return request


def hostile_json(rng: random.Random) -> Request:
    """Returns a request whose JSON is mutated as a tree, and sometimes as bytes."""
    request = _base(rng)
    for _ in range(rng.choice((1, 1, 2, 5))):
        request = mutate_json(rng, request)
    body = json.dumps(request, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        body = mutate_bytes(rng, body)
    return inference("inference: JSON", body, rng.choice(("fashionnet", "fashionnet", "fashionnet-photo", "unknown")))


def hostile_tensor(rng: random.Random) -> Request:
    """Returns a request with a binary tensor, about whose size something lies."""
    datatype = rng.choice(("UINT8", "FP32", "BYTES", "BYTES", "BOOL", "X"))
    blob = _elements(rng) if datatype == "BYTES" else rng.randbytes(rng.choice((0, 1, 784, 784 * 4)))
    size: Any = len(blob) + rng.choice((0, 0, 0, 1, -1, 2**31))
    shape = rng.choice(([1, 28, 28], [1], [2], [-1], [0], [1, 1, 28, 28], [2**40, 2**40]))
    head = tensor(shape=shape, datatype=datatype, parameters={"binary_data_size": size})
    del head["data"]
    text = json.dumps(mutate_json(rng, {"inputs": [head]}) if rng.random() < 0.3 else {"inputs": [head]}).encode()
    length = str(len(text) + rng.choice((0, 0, 0, 0, 1, -1, -len(text), 10**9)))
    if rng.random() < 0.1:
        length = rng.choice(("", "-1", "x", "0x10", "1e3", " 7", "9" * 30, "\u0663".encode().decode("latin-1"), "1_0"))
    return inference("inference: binary", text + blob, Inference_Header_Content_Length=length)


def _elements(rng: random.Random) -> bytes:
    """Returns BYTES elements, sometimes with a length that is not theirs."""
    contents = [mutate_picture(rng)[1] if rng.random() < 0.5 else grey_png() for _ in range(rng.randrange(4))]
    lie = rng.choice((0, 0, 0, 1, -1, 2**31))
    return b"".join(struct.pack("<I", len(content) + lie & 0xFFFFFFFF) + content for content in contents)


def hostile_encoding(rng: random.Random) -> Request:
    """Returns a compressed request: broken, compressed twice, larger than allowed, or of another encoding."""
    pack = rng.choice((gzip.compress, zlib.compress, lambda body: body))
    body = pack(encoded())
    match rng.randrange(5):
        case 0:
            body = mutate_bytes(rng, body)
        case 1:
            body = pack(body)
        case 2:
            body += rng.choice((body, b"\0", rng.randbytes(50)))
        case 3:
            body = zeros(rng.choice((10**6, 10**8, 10**9)))
    encoding = rng.choice(("gzip", "deflate", "gzip", "deflate", "identity", "br", "gzip, gzip", "\xff"))
    return inference("inference: encoding", body, Content_Encoding=encoding)


def large_inferences() -> list[Request]:
    """Returns the requests that are few bytes, or well-formed, and much work."""
    many = {"inputs": [tensor(shape=[200, 28, 28], data=[0] * 156_800)], "outputs": [{"name": "logits"}] * 10_000}
    pngs = (struct.pack("<I", len(grey_png())) + grey_png()) * 50_000
    head = json.dumps({"inputs": [{"name": "images", "shape": [50_000], "datatype": "BYTES",
                                   "parameters": {"binary_data_size": len(pngs)}}]}).encode()  # fmt: skip
    one = b'{"inputs":[{"name":"images","shape":[1],"datatype":"UINT8","data":['
    return [
        inference("10,000 outputs", gzip.compress(json.dumps(many).encode()), Content_Encoding="gzip"),
        inference("deflate bomb", zlib.compress(one + b"[]," * 33_000_000, 9), Content_Encoding="deflate"),
        inference("unfinished deflate bomb", zeros(99_000_000), Content_Encoding="deflate"),
        inference("shape of 2**80", encoded(shape=[0, 2**40, 2**40], data=[])),
        inference("shape without pixels", encoded(shape=[2**40, 0, 28, 28], data=[])),
        inference("shape of no image", encoded(shape=[2**62, 28, 28, 0], data=[])),
        inference("length of 4,301 digits", b"{}", Inference_Header_Content_Length="9" * 4301),
        inference("50,000 pictures", head + pngs, Inference_Header_Content_Length=str(len(head))),
        inference("8 MB of empty lists", one + b"[]," * 2_666_666 + b"[]]}]}"),
        inference("8 MB of zeros", one + b"0," * 4_000_000 + b"0]}]}"),
        inference("depth of 1,000,000", b"[" * 1_000_000),
        inference("depth of the data", one + b"[" * 50_000 + b"]" * 50_000 + b"]}]}"),
        inference("depth of a parameter", b'{"parameters":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001),
    ]
