"""API keys: a file with a line ``NAME:SHA256`` for each, which is read again when it changes.

A key is long and random, so nobody can guess it from its plain hash.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from starlette.types import ASGIApp, Receive, Scope, Send

from app.metrics import KEYS
from app.problems import ProblemType, ServiceError, route_path
from model import FashionNetError

logger = logging.getLogger("fashionnet")

NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
LINE = re.compile(rf"({NAME.pattern}):([0-9a-f]{{64}})", re.ASCII)
KEYLESS = re.compile(
    r"/(page/.+|docs(/.+)?|static-offline-docs/.+|openapi\.json|(v2/)?health/(live|ready)"
    r"|inference\.GRPCInferenceService/Server(Live|Ready)|grpc\.health\.v1\.Health/Check)?"
)
"""The paths that need no key: the page and the documentation, which hold nothing secret, and health, also of gRPC."""
LOOK_SECONDS = 1


class KeyFileError(FashionNetError):
    """The file of the keys is missing or broken."""


class InvalidKey(ServiceError):
    """No API key, or one that is not known."""

    problem_type = ProblemType(401, "invalid-key", "Invalid API key")
    headers: ClassVar = {"WWW-Authenticate": 'Bearer realm="FashionNet"'}


class Keys:
    """The keys of a file; raises KeyFileError if it is missing or broken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version, self._next_look = _version(path), 0.0
        self._names = dict(read_keys(path))

    def name_of(self, key: bytes) -> str | None:
        """Returns the name of a key, in a time that does not depend on how much of it is right."""
        self._look()
        digest = hashlib.sha256(key).digest()
        names = [name for known, name in self._names.items() if hmac.compare_digest(known, digest)]
        return names[0] if names else None

    def require(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises InvalidKey if a request for ``path`` needs a key and has none that is known."""
        if is_keyless(path):
            return
        given = list(_given(headers))
        name = next(filter(None, map(self.name_of, given)), None)
        if name is None:
            problem = "The API key is unknown" if given else "The request has no API key"
            raise InvalidKey(f"{problem}: send a valid one as  Authorization: Bearer KEY  or  X-API-Key: KEY")
        KEYS.labels(name).inc()

    def _look(self) -> None:
        """Reads the file again if it has changed; keeps the keys if it is broken."""
        if (now := time.monotonic()) < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if (version := _version(self.path)) == self._version:
            return
        self._version = version
        try:
            self._names = dict(read_keys(self.path))
        except KeyFileError as error:
            logger.warning("The API keys stay as they are: %s", error)
        else:
            logger.info("the API keys were read again: %s", ", ".join(sorted(set(self._names.values()))))


class KeyMiddleware:
    """Pure ASGI: raises InvalidKey for a request without a known key, before its body is read."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.keys.require(route_path(scope), scope["headers"])
        await self.app(scope, receive, send)


def is_keyless(path: str) -> bool:
    """Returns whether a path needs no key."""
    return bool(KEYLESS.fullmatch(path))


def read_keys(path: Path) -> Iterator[tuple[bytes, str]]:
    """Yields hash and name of every key in a file; raises KeyFileError. Messages never contain a line."""
    remedy = "write a line for each key, which `fashionnet key NAME` prints"
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise KeyFileError(f"The file of API keys {path} cannot be read ({error.strerror}): {remedy}.") from error
    numbered = [(number, line) for number, line in enumerate(map(str.strip, lines), 1) if line and line[0] != "#"]
    if not numbered:
        raise KeyFileError(f"The file of API keys {path} has none: {remedy}.")
    for number, line in numbered:
        if not (match := LINE.fullmatch(line)):
            raise KeyFileError(f"Line {number} of the file of API keys {path} is not NAME:SHA256: {remedy}.")
        yield bytes.fromhex(match[2]), match[1]


def create_key(name: str) -> tuple[str, str]:
    """Returns a new key and its line for the file."""
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"


def _given(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yields the keys that a request has."""
    for name, value in headers:
        if name == b"x-api-key":
            yield value
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            yield value[7:].strip()


def _version(path: Path) -> tuple[int, ...] | None:
    """Returns what changes when the file does; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
