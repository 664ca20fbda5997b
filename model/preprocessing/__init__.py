"""From an encoded picture to the network's input."""

from model.preprocessing.decode import DecodeLimits, is_native_png
from model.preprocessing.fit import fit_data_set
from model.preprocessing.pipeline import (
    IDENTITY,
    InputOf,
    Picture,
    PictureKind,
    Preprocessing,
    preprocess,
    preprocess_native,
)

__all__ = [
    "IDENTITY",
    "DecodeLimits",
    "InputOf",
    "Picture",
    "PictureKind",
    "Preprocessing",
    "fit_data_set",
    "is_native_png",
    "preprocess",
    "preprocess_native",
]
