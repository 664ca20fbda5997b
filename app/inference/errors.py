"""What inference raises on purpose. The HTTP application gives each a status (app/problems.py)."""


class InferenceError(Exception):
    """The base; the message is one sentence for the client."""


class UnknownModel(InferenceError):
    """No model of that name, or of that version, is served."""


class UnknownImage(InferenceError):
    """The test set has no image of that number."""


class Overloaded(InferenceError):
    """More work waits than the service can do soon.

    Args:
        seconds: after which a request would be accepted, as far as is known.
    """

    def __init__(self, seconds: int = 1) -> None:
        self.seconds = max(seconds, 1)
        when = "a second" if self.seconds == 1 else f"{self.seconds} seconds"
        super().__init__(f"The server is busy: try again in {when}.")


class DrawingTooLarge(InferenceError):
    """A drawing takes longer, or more memory, than it may."""

    def __init__(self) -> None:
        super().__init__("Drawing this takes too long here: choose fewer rows and columns.")


class HelperLost(InferenceError):
    """The process that decodes pictures is gone."""

    def __init__(self) -> None:
        super().__init__("The server cannot decode pictures at the moment: try again in a second.")
