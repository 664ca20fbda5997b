"""From an encoded picture to the network's input."""

from model.preprocessing.pipeline import UNTOUCHED, Choice, Picture, Preprocessing, is_in_form, preprocess

__all__ = ["UNTOUCHED", "Choice", "Picture", "Preprocessing", "is_in_form", "preprocess"]
