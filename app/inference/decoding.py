"""Decodes pictures of clients: native ones at once, all others in the sandbox."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from app.inference.admission import batch_cost
from app.inference.sandbox import CallLimits, HelperCrashed, MemoryLimitExceeded, TimeLimitExceeded, create_sandbox
from app.settings import Settings
from model import Picture, preprocess
from model.errors import DamagedImage, ImageError, TooComplex, TooManyPixels
from model.inputs import ModelInput
from model.preprocessing import DecodeLimits, PictureKind, preprocess_native

NATIVE_BYTES = 4096
"""Largest native picture that is decoded on the event loop: that takes less than handing it to another process."""
MARGIN = 64_000_000
"""Bytes that a call takes besides the decoded picture: the file, strips of the picture, the result."""

BUDGET_PICTURES = 5
"""A request for many pictures may contain so many that take as long as a picture may."""
BUDGET_FACTOR = 10
"""A picture in a request for many may take so many times as long as is expected."""

Result = TypeVar("Result")
Inputs = Mapping[PictureKind, ModelInput]
"""The input of the model for each kind of picture."""


class DecodingBudget:
    """The time of the decoder that one request for many pictures may take, by the clock.

    It grows with each picture, so ordinary pictures do not exhaust it. Pictures that each take nearly as long as one
    may would occupy the decoder for minutes.

    Args:
        seconds: to begin with.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def add(self, content: bytes) -> None:
        """Adds the time for one more picture."""
        self.seconds += BUDGET_FACTOR * batch_cost(len(content), 1)

    def require(self) -> None:
        """Raises TooComplex if no time is left."""
        if self.seconds <= 0:
            raise TooComplex("The pictures before this one took too long to decode: send fewer of them in a request.")

    def spend(self, work: Callable[[], Result]) -> Result:
        """Returns the result of ``work`` and takes its time off."""
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds -= time.perf_counter() - start


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

    async def preprocess(self, content: bytes, inputs: Inputs, budget: DecodingBudget | None = None) -> Picture:
        """Returns the model's input for an encoded picture; raises ImageError if it cannot be used."""
        return self.native(content, inputs) or await self.decode(content, inputs, budget)

    def native(self, content: bytes, inputs: Inputs) -> Picture | None:
        """Returns the input for a picture of the data set's own form, which takes microseconds; None for others."""
        return preprocess_native(content, inputs.__getitem__) if len(content) <= NATIVE_BYTES else None

    async def decode(self, content: bytes, inputs: Inputs, budget: DecodingBudget | None = None) -> Picture:
        """As ``preprocess``, for a picture of another form."""
        return await self.run(preprocess, content, inputs.__getitem__, budget=budget)

    async def run(
        self, function: Callable[..., Result], content: bytes, *args: object, budget: DecodingBudget | None = None
    ) -> Result:
        """Runs a function that decodes a picture in the sandbox; its argument ``limits`` is added.

        Raises:
            ImageError: the picture cannot be used.
        """
        if budget:
            budget.add(content)
            budget.require()
        try:
            return await self.call(function, content, *args, budget=budget, limits=self.limits)
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

    async def call(
        self, function: Callable[..., Result], *args: object, budget: DecodingBudget | None = None, **kwargs: object
    ) -> Result:
        """Runs any function in the sandbox."""
        work = partial(self.sandbox.run, function, *args, **kwargs)
        if budget:
            work = partial(budget.spend, work)
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    def budget(self) -> DecodingBudget:
        """Returns the budget of a request for many pictures."""
        return DecodingBudget(BUDGET_PICTURES * self.seconds)

    async def preprocess_or_error(
        self, content: bytes | Exception, inputs: Inputs, budget: DecodingBudget
    ) -> Picture | Exception:
        """As ``preprocess``, but returns the error; a given exception is returned as it is."""
        if isinstance(content, Exception):
            return content
        try:
            return await self.preprocess(content, inputs, budget)
        except ImageError as error:
            return error
