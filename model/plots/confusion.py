"""Draws a confusion matrix."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from model.plots.style import INK, PAPER, encode_png

CELL = 56
MARGIN = 110
LIGHT, DARK = (247, 251, 255), (8, 48, 107)


def draw_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Returns a PNG of the counts ``[C][C]``: true classes in rows, predicted classes in columns.

    The shade of a cell is its share of the row.
    """
    side = CELL * len(classes)
    canvas = Image.new("RGB", (MARGIN + side + 10, MARGIN + side + 10), PAPER)
    draw = ImageDraw.Draw(canvas)
    small, plain = ImageFont.load_default(12), ImageFont.load_default(14)
    draw.text((8, MARGIN - 10), "true", INK, plain, anchor="ls")
    draw.text((MARGIN, 22), "predicted", INK, plain, anchor="ls")
    for i, name in enumerate(classes):
        centre = MARGIN + i * CELL + CELL // 2
        draw.text((MARGIN - 8, centre), name, INK, small, anchor="rm")
        _write_upwards(canvas, (centre, MARGIN - 8), name, small)
        for j, count in enumerate(matrix[i]):
            _draw_cell(draw, (MARGIN + j * CELL, MARGIN + i * CELL), count, count / max(1, sum(matrix[i])))
    return encode_png(canvas)


def _draw_cell(draw: ImageDraw.ImageDraw, corner: tuple[int, int], count: int, share: float) -> None:
    x, y = corner
    # The square root makes small shares visible.
    shade = tuple(round(a + (b - a) * share**0.5) for a, b in zip(LIGHT, DARK, strict=True))
    draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), fill=shade)
    if count:
        ink = PAPER if share > 0.2 else INK
        draw.text((x + CELL // 2, y + CELL // 2), str(count), ink, ImageFont.load_default(13), anchor="mm")


def _write_upwards(
    canvas: Image.Image, foot: tuple[int, int], text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    strip = Image.new("RGB", (right - left + 2, bottom - top + 2), PAPER)
    ImageDraw.Draw(strip).text((-left, -top), text, INK, font)
    rotated = strip.rotate(90, expand=True)
    canvas.paste(rotated, (foot[0] - rotated.width // 2, foot[1] - rotated.height))
