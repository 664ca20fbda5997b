"""The exceptions that this project raises on purpose, below HTTP."""


class FashionNetError(Exception):
    """The base of all of them."""


class DataError(FashionNetError):
    """Images or their labels cannot be used: the data set, labelled photos or a table.

    The message names the paths; ``public`` says the same without them, for clients of the service.
    """

    def __init__(self, message: str, public: str | None = None) -> None:
        super().__init__(message)
        self.public = public or message


class DataMissing(DataError):
    """A file is not there."""


class DataCorrupt(DataError):
    """A file does not match its checksum or its format."""


class DownloadFailed(DataError):
    """The data set could not be fetched."""


class ImageError(FashionNetError):
    """A picture cannot be used."""


class EmptyImage(ImageError):
    """There are no bytes."""


class NotAnImage(ImageError):
    """The bytes are not a picture."""


class UnknownFormat(ImageError):
    """The bytes are a picture of a format that is not accepted."""


class DamagedImage(ImageError):
    """The image is truncated or altered."""


class TooManyPixels(ImageError):
    """The image has more pixels than the decoder may allocate."""


class TooComplex(ImageError):
    """Decoding the image takes too long."""


class ArtifactError(FashionNetError):
    """A trained network cannot be loaded or written."""


class ArtifactMissing(ArtifactError):
    """A file of the artefact is not there."""


class ArtifactCorrupt(ArtifactError):
    """A file of the artefact is truncated, altered or does not fit its card."""


class TrainingError(FashionNetError):
    """A training run cannot start or go on as asked."""


class ExtraMissing(FashionNetError):
    """An optional package is not installed."""
