"""Hostile multipart forms: their parts, boundaries, headers and counts."""

import random

from tests.fuzz.bombs import bombs, small_bombs
from tests.fuzz.mutators import mutate_bytes, mutate_parts
from tests.fuzz.requests import Request, batch, picture, post
from tests.pictures import grey_png

HEADERS = (
    b'Content-Disposition: form-data; name="file"; filename="x.png"',
    b'Content-Disposition: form-data; name="files"; filename="x.png"',
    b"Content-Disposition: form-data; name=file; filename=x.png",
    b'Content-Disposition: form-data; name="file"',
    b"Content-Disposition: form-data",
    b'content-disposition:form-data;name="file";filename="' + b"x" * 5000 + b'"',
    b"Content-Disposition: form-data; name=\"\xff\xfe\"; filename*=utf-8''%E2%82%AC",
    b'Content-Disposition: attachment; name="file"; filename="\\"; x="y"',
    b'Content-Disposition: form-data; name="fi\x00le"; filename="../../x"',
    b"Content-Type: multipart/mixed; boundary=boundary",
    b"Content-Type: image/png; charset=\xff",
    b"Content-Transfer-Encoding: base64",
    b"Content-Length: 99999999999999999999",
    b"no colon",
    b" folded: by a space",
    b": no name",
    b"X: " + b"y" * 20_000,
)
LINES = (b"--boundary", b"--boundary--", b"--boundary \t", b"--boundar", b"--", b"", b"\r", b"--boundary\r\n--boundary")
EXPLAINED = ("webp of 38 bytes", "jpeg of 5,000 scans", "png of a palette")
RIGHT = "boundary"
BOUNDARIES = (RIGHT, RIGHT, RIGHT, RIGHT, '"boundary"', "Boundary", "", '"', "b" * 70, "b" * 30_000,
              "boundary; boundary=x", "\xff", "a b", "--boundary--")  # fmt: skip


def hostile_form(rng: random.Random) -> Request:
    """Returns a form whose lines are mutated as a list, and sometimes as bytes."""
    lines: list[bytes] = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        lines += [b"--boundary", rng.choice(HEADERS[:3]), b"", grey_png()]
    lines += [b"--boundary--", b""]
    if rng.random() < 0.8:
        lines = mutate_parts(rng, lines, lambda: rng.choice(HEADERS + LINES))
    body = rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n")).join(lines)
    if rng.random() < 0.3:
        body = mutate_bytes(rng, body or b"-")
    kind = rng.choice(("multipart/form-data", "multipart/form-data", "multipart/form-data", "multipart/mixed",
                       "Multipart/Form-Data", "application/x-www-form-urlencoded", ""))  # fmt: skip
    content_type = f"{kind}; boundary={rng.choice(BOUNDARIES)}"
    return post("form", rng.choice(("/predict", "/predict/batch", "/explain")), body, {"Content-Type": content_type})


def large_forms() -> list[Request]:
    """Returns every bomb alone, and forms of many parts and of bombs."""
    alone = [picture(name, content) for name, content in bombs().items()]
    explained = [picture(f"explain: {name}", bombs()[name], "/explain") for name in EXPLAINED]
    return [
        *alone,
        *explained,
        batch("form of 256 pictures", [grey_png()] * 256),
        batch("form of 100,000 files", [b""] * 100_000),
        *[batch("form of small bombs", small_bombs())] * 6,
    ]
