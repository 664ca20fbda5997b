"""Whether this process may be sent predictions, and why not."""

import logging
from collections.abc import Awaitable

from app.problems import NotReady

logger = logging.getLogger("fashionnet")


class Readiness:
    """Not ready until a self-test has passed, and again once the service stops."""

    def __init__(self) -> None:
        self.reason: str | None = "The service is starting: its self-test has not finished yet."

    async def settle(self, self_test: Awaitable[None]) -> None:
        """Wait for the self-test and become ready, or keep the reason why not."""
        try:
            await self_test
        except Exception:
            logger.exception("the self-test failed")
            self.reason = "The self-test inference failed; the log says how."
        else:
            self.reason = None

    def stop(self) -> None:
        """Become unready because the service stops."""
        self.reason = "The service is stopping."

    def require(self) -> None:
        """Raise NotReady, with the reason, where the service is not ready."""
        if self.reason:
            raise NotReady(self.reason)
