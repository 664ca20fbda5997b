"""Pictures out of a request's body, counted while they stream in and never on the disk.

The body goes to the push parser of ``multipart`` as it arrives; Starlette's ``request.form()`` would spool every
file into a temporary one first, has no limit for files and takes ten times as long (docs/decisions/0004-uploads.md).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TypeVar

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header
from starlette.requests import Request
from starlette.types import Message

from app.problems import BodyTooLarge, MalformedBody, MissingFile, SlowBody, TooManyFiles, UnsupportedBody
from app.settings import Settings

FRAMING = 64 * 1024
"""Bytes that a multipart body may have beside its files."""
PIECE = 16 * 1024
"""Bytes of a body that are taken in one go. So many of small files are parsed in less than a millisecond, and the
event loop gives the engine its next pictures, and answers others, before the rest."""
FIELDS = 32
"""Parts that a form for one picture may have; browsers and tools add a few beside the file."""
BODY_IS_HERE = "fashionnet.body_is_here"
"""Extension of the ASGI scope by which a server tells that it has the whole body: no timer is needed then, which takes
some microseconds to set."""
Item = TypeVar("Item")
Take = Callable[[Item], Awaitable[None]]
"""Is handed something of a body; no more of it is read until that is taken."""
RAW_TYPES = ("image/", "application/octet-stream")


@dataclass
class Upload:
    """One file of a request."""

    field: str
    filename: str | None
    pieces: list[bytes | bytearray] = dataclass_field(default_factory=list)
    size: int = 0
    """Bytes sent; ``pieces`` stop growing at the limit."""

    def read(self, max_bytes: int) -> bytes:
        """The file's bytes; raises BodyTooLarge where there are more than ``max_bytes``."""
        if self.size > max_bytes:
            raise _too_large(max_bytes)
        return b"".join(self.pieces)

    def read_or_error(self, max_bytes: int) -> bytes | BodyTooLarge:
        """As ``read``, for where one file's error must not harm the others."""
        try:
            return self.read(max_bytes)
        except BodyTooLarge as error:
            return error


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and how long it may take to arrive."""

    file_bytes: int
    body_bytes: int
    files: int
    seconds: float

    @classmethod
    def of_one(cls, settings: Settings) -> "Limits":
        """Those of a request with one picture."""
        most = settings.max_upload_bytes
        return cls(most, most + FRAMING, files=8, seconds=settings.body_timeout)

    @classmethod
    def of_batch(cls, settings: Settings) -> "Limits":
        """Those of a request with many."""
        return cls(settings.max_upload_bytes, settings.max_batch_bytes, settings.max_batch_files, settings.body_timeout)


async def read_picture(request: Request, limits: Limits) -> bytes:
    """The one picture of a request: the multipart field ``file``, or a raw body of an image content type.

    Raises:
        MissingFile, MalformedBody, UnsupportedBody, BodyTooLarge, TooManyFiles, SlowBody: what is wrong with the body.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.startswith(RAW_TYPES):
        return await read_body(request, limits.file_bytes, limits.seconds)
    uploads = await read_uploads(request, limits)
    for upload in uploads:
        if upload.field == "file":
            return upload.read(limits.file_bytes)
    raise MissingFile(f"The form has no file under the name 'file'{_names(uploads)}: send it as  -F file=@shirt.png")


async def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """The body as it is; raises BodyTooLarge past ``max_bytes``, SlowBody past ``seconds``."""
    pieces: list[bytes] = []

    async def take(piece: bytes) -> None:
        pieces.append(piece)

    await _receive_body(request, max_bytes, seconds, take)
    return b"".join(pieces)


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """All files of a multipart body, in their order; raises what ``hand_over_uploads`` does."""
    uploads: list[Upload] = []

    async def take(upload: Upload) -> None:
        uploads.append(upload)

    await hand_over_uploads(request, limits, take)
    return uploads


async def hand_over_uploads(request: Request, limits: Limits, take: Take[Upload]) -> None:
    """Call ``take`` with each file of a multipart body as soon as it is there; no more is read until it returns.

    Raises:
        MalformedBody, UnsupportedBody, BodyTooLarge, TooManyFiles, SlowBody: what is wrong with the body.
    """
    collector = _Collector(limits)

    async def parse(piece: bytes) -> None:
        for event in parser.parse(piece):
            if upload := collector.ended_by(event):
                await take(upload)

    try:
        parser = PushMultipartParser(_boundary(request), max_segment_count=limits.files + FIELDS)
        await _receive_body(request, limits.body_bytes, limits.seconds, parse)
        parser.close()
    except ParserLimitReached as error:
        raise MalformedBody(f"The multipart body goes past a limit: {error}.") from error
    except (MultipartError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The multipart body is malformed: {error}.") from error


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"{max_bytes:,} bytes are the most that are accepted here: send a smaller file.")


async def _receive_body(request: Request, max_bytes: int, seconds: float, take: Take[bytes]) -> None:
    """Hand the body's chunks to ``take``; stops at the limit, and before the first byte where Content-Length tells.

    Args:
        request: of which nothing was received yet.
        max_bytes: of the whole body.
        seconds: for which it is waited for in all; what ``take`` takes does not count.
        take: is handed pieces of ``PIECE`` bytes.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    is_here = BODY_IS_HERE in request.scope.get("extensions", {})
    size, more = 0, True
    while more:
        since = time.perf_counter()
        message = await (request.receive() if is_here else _receive_within(seconds, request))
        seconds -= time.perf_counter() - since
        if message["type"] == "http.disconnect":  # nobody reads the answer, and nothing here went wrong
            raise MalformedBody("The connection was closed before the body was complete.")
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            await take(chunk[:PIECE])
            for start in range(PIECE, len(chunk), PIECE):
                await asyncio.sleep(0)
                await take(chunk[start : start + PIECE])


async def _receive_within(seconds: float, request: Request) -> Message:
    try:
        async with asyncio.timeout(seconds):
            return await request.receive()
    except TimeoutError:
        raise SlowBody("The body took too long to arrive: send a smaller file, or try again.") from None


def _boundary(request: Request) -> str:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data":
        raise UnsupportedBody(
            f"The body came as {kind or 'no content type'!r}: send a form with  curl -F file=@shirt.png , "
            "or the picture itself with  curl --data-binary @shirt.png -H 'Content-Type: image/png'"
        )
    if not options.get("boundary"):
        raise MalformedBody("The content type multipart/form-data names no boundary.")
    return str(options["boundary"])


def _names(uploads: Sequence[Upload]) -> str:
    return f" (only {', '.join(repr(upload.field) for upload in uploads)})" if uploads else ""


class _Collector:
    """Makes files of what the push parser hands over."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._files = 0
        self._current: Upload | None = None

    def ended_by(self, event: MultipartSegment | bytes | bytearray | None) -> Upload | None:
        """The file that ends with this one of a part's events: its head, its content piece by piece, then None."""
        if event is None:
            return self._current
        if isinstance(event, MultipartSegment):
            self._current = self._begin(event)
        elif upload := self._current:
            upload.size += len(event)
            if upload.size <= self.limits.file_bytes:
                upload.pieces.append(event)
        return None

    def _begin(self, segment: MultipartSegment) -> Upload | None:
        name = segment.name or ""
        if segment.filename is None and name != "file":
            return None  # a plain form field
        if self._files == self.limits.files:
            raise TooManyFiles(
                f"{self.limits.files} files are the most that one request may hold: send several requests."
            )
        self._files += 1
        return Upload(name, segment.filename)
