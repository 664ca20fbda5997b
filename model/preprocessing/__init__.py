"""From an encoded picture to the network's input."""

from model.preprocessing.pipeline import UNTOUCHED, Picture, Preprocessing, is_in_form, preprocess

__all__ = ["UNTOUCHED", "Picture", "Preprocessing", "is_in_form", "preprocess"]
