"""Plots as PNG files: galleries, confusion matrices and heat maps. Curves and reliability need the extra ``train``."""

from model.plots.confusion import draw_confusion
from model.plots.gallery import draw_gallery, show
from model.plots.heat_map import draw_canvas, draw_explanation, draw_heat_map
from model.plots.style import encode_png

__all__ = ["draw_canvas", "draw_confusion", "draw_explanation", "draw_gallery", "draw_heat_map", "encode_png", "show"]
