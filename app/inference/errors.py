"""What inference raises on purpose. The HTTP application gives each a status (app/problems.py)."""


class InferenceError(Exception):
    """The base; the message is one sentence for the client."""


class UnknownModel(InferenceError):
    """No model of that name, or of that version, is served."""


class UnknownImage(InferenceError):
    """The test set has no image of that number."""


class Overloaded(InferenceError):
    """More pictures wait than the service can answer soon."""

    def __init__(self) -> None:
        super().__init__("The server is busy. Try again in a second.")
