"""Reads pictures from a request's body, within limits that are checked while it arrives, and never to the disk.

The body goes to the push parser of ``multipart`` as it arrives; Starlette's ``request.form()`` would spool every
file into a temporary one first, has no limit for files and takes ten times as long (docs/decisions/0004-uploads.md).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.inference.admission import BodyMemory
from app.problems import BodyTooLarge, MalformedBody, MissingFile, SlowBody, TooManyFiles, UnsupportedBody
from app.settings import Settings

MULTIPART_OVERHEAD = 64 * 1024
"""Bytes of boundaries, heads of parts and other fields in a form for one picture."""
FIELDS = 32
"""Parts that a form for one picture may have; browsers and tools add a few."""
HEADERS = "latin-1"
"""Charset that decodes any header of a part: file names need not be UTF-8, and nobody uses them."""
RAW_TYPES = ("image/", "application/octet-stream")


@dataclass
class Upload:
    """One file of a request."""

    field: str
    pieces: list[bytes | bytearray] = dataclass_field(default_factory=list)
    size: int = 0
    """Bytes sent; ``pieces`` stop growing at the limit."""

    def append(self, piece: bytes | bytearray, max_bytes: int) -> None:
        """Adds a piece, or only counts it past ``max_bytes``."""
        self.size += len(piece)
        if self.size <= max_bytes:
            self.pieces.append(piece)

    def read(self, max_bytes: int) -> bytes:
        """Returns the file's bytes; raises BodyTooLarge if there are more than ``max_bytes``."""
        if self.size > max_bytes:
            raise _too_large(max_bytes)
        return b"".join(self.pieces)

    def read_or_error(self, max_bytes: int) -> bytes | BodyTooLarge:
        """As ``read``, but returns the error, so that one file's error does not harm the others."""
        try:
            return self.read(max_bytes)
        except BodyTooLarge as error:
            return error


@dataclass(frozen=True)
class Limits:
    """The limits of one request: sizes, number of files, and seconds until it must be here."""

    file_bytes: int
    body_bytes: int
    overhead: int
    """Bytes that the body may have besides."""
    files: int
    seconds: float

    @classmethod
    def of_one(cls, settings: Settings) -> "Limits":
        """Returns the limits of a request with one picture."""
        most = settings.max_upload_bytes
        return cls(most, most, MULTIPART_OVERHEAD, files=8, seconds=settings.body_timeout_seconds)

    @classmethod
    def of_batch(cls, settings: Settings) -> "Limits":
        """Returns the limits of a request with many pictures."""
        largest, seconds = settings.max_request_bytes, settings.body_timeout_seconds
        return cls(settings.max_upload_bytes, largest, overhead=0, files=settings.max_files, seconds=seconds)


def declared_length(request: Request) -> int:
    """Returns the Content-Length; 0 if there is none that is a number."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isdecimal() and len(value) < 20 else 0


async def read_picture(request: Request, limits: Limits, memory: BodyMemory) -> bytes:
    """The one picture of a request: the multipart field ``file``, or a raw body of an image content type.

    Raises:
        MissingFile, MalformedBody, UnsupportedBody, BodyTooLarge, TooManyFiles, SlowBody: what is wrong with the body.
        Overloaded: there is no room for the body.
    """
    content_type = request.headers.get("content-type", "").lower()
    if content_type.startswith(RAW_TYPES):
        return await read_body(request, limits.file_bytes, limits.seconds, memory)
    uploads = [upload async for upload in read_uploads(request, limits, memory)]
    for upload in uploads:
        if upload.field == "file":
            return upload.read(limits.file_bytes)
    raise MissingFile(f"The form has no file under the name 'file'{_names(uploads)}: send it as  -F file=@shirt.png")


async def read_body(request: Request, max_bytes: int, seconds: float, memory: BodyMemory) -> bytes:
    """Returns the body; raises BodyTooLarge past ``max_bytes``, SlowBody past ``seconds``, Overloaded without room."""
    body = bytearray()
    async for chunk in _chunks(request, max_bytes, seconds, memory):
        body += chunk
    return bytes(body)


async def read_uploads(request: Request, limits: Limits, memory: BodyMemory) -> AsyncIterator[Upload]:
    """Yields the files of a multipart body in their order, each as soon as it is complete.

    Raises:
        MalformedBody, UnsupportedBody, BodyTooLarge, TooManyFiles, SlowBody: what is wrong with the body.
        Overloaded: there is no room for the body.
    """
    collector = _Collector(limits)
    try:
        parser = PushMultipartParser(
            _boundary(request), max_segment_count=limits.files + FIELDS, header_charset=HEADERS
        )
        async for chunk in _chunks(request, limits.body_bytes, limits.seconds, memory, limits.overhead):
            for event in parser.parse(chunk):
                upload = collector.add(event)
                if upload is not None:
                    yield upload
        parser.close()
    except ParserLimitReached as error:
        raise MalformedBody(f"The multipart body exceeds a limit: {error}.") from error
    except (MultipartError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The multipart body is malformed: {error}.") from error


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The limit is {max_bytes:,} bytes: send a smaller file.")


async def _chunks(
    request: Request, max_bytes: int, seconds: float, memory: BodyMemory, overhead: int = 0
) -> AsyncIterator[bytes]:
    """Yields the body's chunks; stops at the limits, and before the first byte if Content-Length exceeds the limit.

    Args:
        request: nothing of its body was received yet.
        max_bytes: of the whole body, without its overhead.
        seconds: that are spent waiting for the body; what the caller does between two chunks does not count.
        memory: counts the bytes.
        overhead: bytes that the body may have besides.
    """
    if declared_length(request) > max_bytes + overhead:
        raise _too_large(max_bytes)
    loop, size, more = asyncio.get_running_loop(), 0, True
    while more:
        start = loop.time()
        message = await _receive_until(start + seconds, request)
        seconds -= loop.time() - start
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes + overhead:
            raise _too_large(max_bytes)
        memory.add(len(chunk))
        yield chunk


async def _receive_until(deadline: float, request: Request) -> Message:
    try:
        async with asyncio.timeout_at(deadline):
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
    """Makes files of the push parser's events."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.count = 0
        self._current: Upload | None = None

    def add(self, event: MultipartSegment | bytes | bytearray | None) -> Upload | None:
        """Takes the next event of a part: its head, its content piece by piece, then None; returns a complete file."""
        if isinstance(event, MultipartSegment):
            self._current = self._begin(event)
        elif event is None:
            complete, self._current = self._current, None
            return complete
        elif self._current is not None:
            self._current.append(event, self.limits.file_bytes)
        return None

    def _begin(self, segment: MultipartSegment) -> Upload | None:
        name = (segment.name or "").encode(HEADERS, "replace").decode(errors="replace")
        if segment.filename is None and name == "files":  # left out, it would shift the answers of the others
            raise MissingFile("A part 'files' of the form has no file name: send it as  -F files=@shirt.png")
        if segment.filename is None and name != "file":
            return None  # a plain form field
        if self.count == self.limits.files:
            raise TooManyFiles(f"The limit is {self.limits.files} files in one request: send several requests.")
        self.count += 1
        return Upload(name)
