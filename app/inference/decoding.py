"""Decodes pictures of clients: native ones at once, all others in the sandbox."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from app.inference.sandbox import CallLimits, HelperCrashed, MemoryLimitExceeded, TimeLimitExceeded, create_sandbox
from app.settings import Settings
from model import Picture, preprocess
from model.errors import DamagedImage, ImageError, TooComplex, TooManyPixels
from model.inputs import ModelInput
from model.preprocessing import DecodeLimits, PictureKind, is_native_png, preprocess_native

NATIVE_BYTES = 4096
"""Largest native picture that is decoded on the event loop: that takes less than handing it to another process."""
MARGIN = 64_000_000
"""Bytes that a call takes besides the decoded picture: the file, strips of the picture, the result."""

Result = TypeVar("Result")
Inputs = Mapping[PictureKind, ModelInput]
"""The input of the model for each kind of picture."""


def is_native(content: bytes) -> bool:
    """Returns whether a picture has the data set's own form, which takes microseconds to decode."""
    return len(content) <= NATIVE_BYTES and is_native_png(content)


class Decoder:
    """Decodes pictures. The pictures of one process wait for each other.

    Args:
        settings: of which the limits of a picture matter.
        executor: a thread that waits for the helper process.
    """

    def __init__(self, settings: Settings, executor: Executor) -> None:
        self.limits = DecodeLimits(settings.max_pixels, settings.picture_memory)
        self.seconds = settings.decode_seconds
        self.executor = executor
        # A picture or JSON goes in, and less comes out; drawings take some 100 kB.
        message = max(settings.max_upload_bytes, settings.max_json_bytes) + 1_000_000
        self.sandbox = create_sandbox(CallLimits(self.seconds, settings.picture_memory + MARGIN, message))

    async def preprocess(self, content: bytes, inputs: Inputs) -> Picture:
        """Returns the model's input for an encoded picture; raises ImageError if it cannot be used."""
        native = preprocess_native(content, inputs.__getitem__) if is_native(content) else None
        if native is not None:
            return native
        return await self.run(preprocess, content, inputs.__getitem__)

    async def run(self, function: Callable[..., Result], content: bytes, *args: object) -> Result:
        """Runs a function that decodes a picture in the sandbox; its argument ``limits`` is added.

        Raises:
            ImageError: the picture cannot be used.
        """
        try:
            return await self.call(function, content, *args, limits=self.limits)
        except TimeLimitExceeded:
            raise TooComplex(
                f"Decoding this picture takes longer than {self.seconds} s: send a smaller one, or a baseline JPEG."
            ) from None
        except MemoryLimitExceeded:
            raise TooManyPixels(
                "Decoding this picture takes too much memory: send a smaller one, or a baseline JPEG."
            ) from None
        except HelperCrashed:
            raise DamagedImage("This picture cannot be decoded: open it in an image viewer and save it anew.") from None

    async def call(self, function: Callable[..., Result], *args: object, **kwargs: object) -> Result:
        """Runs any function in the sandbox."""
        work = partial(self.sandbox.run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    async def preprocess_or_error(self, content: bytes | Exception, inputs: Inputs) -> Picture | Exception:
        """As ``preprocess``, but returns the error; a given exception is returned as it is."""
        if isinstance(content, Exception):
            return content
        try:
            return await self.preprocess(content, inputs)
        except ImageError as error:
            return error
