"""From an encoded picture to the network's input."""

from model.preprocessing.pipeline import IDENTITY, Picture, Preprocessing, is_native_png, preprocess

__all__ = ["IDENTITY", "Picture", "Preprocessing", "is_native_png", "preprocess"]
