"""From an encoded picture to the network's input."""

from model.preprocessing.fit import fit_data_set
from model.preprocessing.pipeline import IDENTITY, Picture, PictureKind, Preprocessing, is_native_png, preprocess

__all__ = ["IDENTITY", "Picture", "PictureKind", "Preprocessing", "fit_data_set", "is_native_png", "preprocess"]
