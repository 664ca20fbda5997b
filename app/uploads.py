"""Pictures out of a request's body, counted while they stream in and never on the disk.

The body goes to python-multipart's push parser as it arrives; Starlette's ``request.form()`` would spool every
file into a temporary one first, and has no limit for files.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from app.errors import BodyTooLarge, MalformedBody, MissingFile, TooManyFiles, UnsupportedBody

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FRAMING = 64 * 1024
"""Bytes that a multipart body may have beside its files."""
RAW_TYPES = ("image/", "application/octet-stream")


@dataclass
class Upload:
    """One file of a request."""

    field: str
    filename: str | None
    content: bytearray = dataclass_field(default_factory=bytearray)
    size: int = 0
    """Bytes sent; ``content`` stops growing at the limit."""

    def read(self, max_bytes: int) -> bytes:
        """The file's bytes; raises BodyTooLarge where there are more than ``max_bytes``."""
        if self.size > max_bytes:
            raise _too_large(max_bytes)
        return bytes(self.content)

    def read_or_error(self, max_bytes: int) -> bytes | BodyTooLarge:
        """As ``read``, for where one file's error must not harm the others."""
        try:
            return self.read(max_bytes)
        except BodyTooLarge as error:
            return error


@dataclass(frozen=True)
class Limits:
    """What one request may hold."""

    file_bytes: int
    body_bytes: int
    files: int


async def read_picture(request: Request, max_bytes: int) -> bytes:
    """The one picture of a request: the multipart field ``file``, or a raw body of an image content type.

    Raises:
        MissingFile, MalformedBody, UnsupportedBody, BodyTooLarge, TooManyFiles: what is wrong with the body.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.startswith(RAW_TYPES):
        return await read_body(request, max_bytes)
    uploads = await read_uploads(request, Limits(max_bytes, max_bytes + FRAMING, files=8))
    for upload in uploads:
        if upload.field == "file":
            return upload.read(max_bytes)
    raise MissingFile(f"The form has no file under the name 'file'{_names(uploads)}: send it as  -F file=@shirt.png")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body as it is; raises BodyTooLarge past ``max_bytes``."""
    return b"".join([chunk async for chunk in _bounded(request, max_bytes)])


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """All files of a multipart body, at least one, in their order.

    Raises:
        MalformedBody, UnsupportedBody, BodyTooLarge, TooManyFiles: what is wrong with the body.
    """
    collector = _Collector(limits)
    try:
        parser = MultipartParser(_boundary(request), collector.callbacks())
        async for chunk in _bounded(request, limits.body_bytes):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBody(f"The multipart body is malformed: {error}.") from error
    if not collector.ended:
        raise MalformedBody("The multipart body ends before its closing boundary.")
    return collector.uploads


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"{max_bytes:,} bytes are the most that are accepted here: send a smaller file.")


async def _bounded(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body's chunks; stops reading at the limit, and before the first byte where Content-Length tells."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            yield chunk
    except ClientDisconnect:  # nobody reads the answer, and nothing here went wrong
        raise MalformedBody("The connection was closed before the body was complete.") from None


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        sent = kind.decode("latin-1") or "no content type"
        raise UnsupportedBody(
            f"The body came as {sent!r}: send a form with  curl -F file=@shirt.png , "
            "or the picture itself with  curl --data-binary @shirt.png -H 'Content-Type: image/png'"
        )
    if not options.get(b"boundary"):
        raise MalformedBody("The content type multipart/form-data names no boundary.")
    return options[b"boundary"]


def _names(uploads: Sequence[Upload]) -> str:
    return f" (only {', '.join(repr(upload.field) for upload in uploads)})" if uploads else ""


class _Collector:
    """Keeps what the push parser hands over: the parts that are files."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.uploads: list[Upload] = []
        self.ended = False
        self._name = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._current: Upload | None = None

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_content,
            "on_part_data": self._add,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._disposition = b""
        self._current = None

    def _begin_header(self) -> None:
        self._name.clear()
        self._value.clear()

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is None and name != "file":
            return  # a plain form field
        if len(self.uploads) == self.limits.files:
            raise TooManyFiles(
                f"{self.limits.files} files are the most that one request may hold: send several requests."
            )
        self._current = Upload(name, filename.decode("utf-8", "replace") if filename else None)
        self.uploads.append(self._current)

    def _add(self, data: bytes, start: int, end: int) -> None:
        if upload := self._current:
            upload.size += end - start
            if upload.size <= self.limits.file_bytes:
                upload.content += data[start:end]

    def _end(self) -> None:
        self.ended = True
