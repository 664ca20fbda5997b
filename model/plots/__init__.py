"""Pictures of images and figures."""

from model.plots.confusion import draw_confusion
from model.plots.gallery import draw_gallery, show

__all__ = ["draw_confusion", "draw_gallery", "show"]
