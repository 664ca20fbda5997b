"""Draw the clothes in examples/: plain shapes, dark on a white page.

python scripts/draw_examples.py              into examples/ and app/static/examples/
python scripts/draw_examples.py FOLDER ...   elsewhere
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageOps

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT / "examples", ROOT / "app" / "static" / "examples"]
SIZE = 400
Draw = ImageDraw.ImageDraw


def shirt(draw: Draw) -> None:
    """Long sleeves, stripes, a collar and buttons."""
    cloth, light, collar, dark = "#3c4860", "#a8b2c4", "#7c88a0", "#28303f"
    draw.polygon([(150, 36), (250, 36), (300, 60), (296, 380), (104, 380), (100, 60)], cloth)
    draw.polygon([(102, 60), (78, 90), (48, 350), (88, 356), (106, 170)], cloth)
    draw.polygon([(298, 60), (322, 90), (352, 350), (312, 356), (294, 170)], cloth)
    for x in range(108, 300, 40):
        draw.line([(x, 75), (x, 374)], light, 8)
    draw.polygon([(158, 30), (200, 66), (176, 104), (140, 48)], collar)
    draw.polygon([(242, 30), (200, 66), (224, 104), (260, 48)], collar)
    draw.line([(200, 66), (200, 374)], dark, 5)
    for y in range(110, 360, 40):
        draw.ellipse((195, y, 205, y + 10), "#ffffff")


def t_shirt(draw: Draw) -> None:
    """Short sleeves and stripes."""
    cloth = "#303840"
    draw.polygon([(150, 40), (175, 56), (225, 56), (250, 40), (290, 55), (276, 370), (124, 370), (110, 55)], cloth)
    draw.polygon([(110, 55), (70, 150), (108, 168), (124, 140)], cloth)
    draw.polygon([(290, 55), (330, 150), (292, 168), (276, 140)], cloth)
    for y in range(120, 340, 36):
        draw.rectangle((124, y, 276, y + 12), "#485058")


def pullover(draw: Draw) -> None:
    """Long sleeves and two bands."""
    cloth, edge, band = "#4a4038", "#241d18", "#857566"
    draw.polygon([(150, 40), (250, 40), (292, 58), (290, 366), (110, 366), (108, 58)], cloth)
    draw.polygon([(108, 58), (74, 120), (54, 360), (94, 364), (110, 180)], cloth)
    draw.polygon([(292, 58), (326, 120), (346, 360), (306, 364), (290, 180)], cloth)
    draw.polygon([(150, 40), (250, 40), (240, 62), (160, 62)], edge)
    draw.rectangle((130, 110, 270, 150), band)
    draw.rectangle((130, 200, 270, 215), band)
    draw.rectangle((110, 350, 290, 366), edge)
    draw.polygon([(110, 120), (118, 180), (118, 366), (110, 366)], edge)
    draw.polygon([(290, 120), (282, 180), (282, 366), (290, 366)], edge)


def coat(draw: Draw) -> None:
    """Long sleeves, fine stripes, lapels, pockets and an open front."""
    cloth, stripe, dark = "#202830", "#5c6874", "#0c1014"
    draw.polygon([(160, 20), (240, 20), (286, 42), (284, 170), (290, 390), (110, 390), (116, 170), (114, 42)], cloth)
    draw.polygon([(114, 42), (84, 110), (68, 330), (104, 334), (116, 170)], cloth)
    draw.polygon([(286, 42), (316, 110), (332, 330), (296, 334), (284, 170)], cloth)
    for y in range(120, 380, 16):
        draw.rectangle((116, y, 284, y + 4), stripe)
    draw.polygon([(160, 20), (200, 150), (240, 20), (270, 60), (200, 190), (130, 60)], dark)
    draw.rectangle((195, 150, 205, 390), dark)
    for x in (125, 230):
        draw.rectangle((x, 250, x + 45, 262), dark)
    draw.polygon([(116, 110), (124, 170), (124, 390), (110, 390)], dark)
    draw.polygon([(284, 110), (276, 170), (276, 390), (290, 390)], dark)


def trouser(draw: Draw) -> None:
    """Two legs."""
    draw.polygon([(140, 30), (260, 30), (272, 375), (212, 375), (201, 130), (188, 375), (128, 375)], "#27364d")
    draw.rectangle((140, 30, 260, 48), "#1a2536")


def dress(draw: Draw) -> None:
    """Sleeveless, narrow at the waist."""
    cloth = "#a03a52"
    draw.polygon([(160, 25), (172, 70), (228, 70), (240, 25), (252, 25), (250, 160), (290, 380), (110, 380)], cloth)
    draw.polygon([(160, 25), (148, 25), (150, 160), (110, 380), (200, 200)], cloth)
    draw.line([(150, 162), (250, 162)], "#6d2236", 8)


def sneaker(draw: Draw) -> None:
    """Low, with a light sole and laces."""
    draw.polygon(
        [(30, 170), (70, 160), (130, 190), (190, 150), (235, 200), (340, 235), (375, 280), (30, 280)], "#51606e"
    )
    draw.rounded_rectangle((25, 268, 380, 302), 14, "#c9ccd1")
    for x in range(165, 240, 22):
        draw.line([(x, 185 + (x - 165) // 3), (x + 26, 172 + (x - 165) // 2)], "#e8e8e8", 6)
    draw.line([(60, 250), (130, 205), (150, 260)], "#e8e8e8", 8)


def ankle_boot(draw: Draw) -> None:
    """A shaft and a heel."""
    draw.polygon([(60, 120), (205, 112), (215, 230), (310, 255), (355, 295), (358, 335), (60, 335)], "#6a5040")
    draw.polygon([(52, 325), (364, 325), (364, 347), (150, 347), (146, 365), (52, 365)], "#20150e")
    draw.line([(132, 132), (136, 230)], "#332013", 16)


def sandal(draw: Draw) -> None:
    """A sole on a heel and straps, and mostly nothing."""
    draw.polygon(
        [(30, 265), (150, 262), (260, 300), (375, 305), (375, 325), (250, 325), (150, 290), (62, 290), (48, 340)],
        "#3a2a20",
    )
    draw.polygon([(30, 265), (60, 265), (58, 345), (40, 345)], "#3a2a20")
    for strap in (
        [(250, 305), (290, 235), (345, 305)],
        [(40, 265), (60, 180), (130, 175), (150, 265)],
        [(130, 180), (290, 240)],
    ):
        draw.line(strap, "#6b4a33", 13, joint="curve")


def bag(draw: Draw) -> None:
    """A body, a flap and a handle."""
    draw.arc((120, 40, 280, 260), 180, 360, "#5f4632", 16)
    draw.rounded_rectangle((50, 150, 350, 360), 22, "#8a6849")
    draw.rounded_rectangle((50, 150, 350, 245), 22, "#73553a")
    draw.rectangle((185, 228, 215, 268), "#d8c79a")


EXAMPLES: dict[str, Callable[[Draw], None]] = {
    "shirt": shirt,
    "t-shirt": t_shirt,
    "pullover": pullover,
    "coat": coat,
    "trouser": trouser,
    "dress": dress,
    "sneaker": sneaker,
    "ankle-boot": ankle_boot,
    "sandal": sandal,
    "bag": bag,
}


TOES_LEFT = ("sneaker", "ankle-boot", "sandal")
"""Drawn with toes to the right and mirrored, because the data set's shoes point to the left."""


def draw_example(name: str) -> Image.Image:
    """Returns an example: RGB, 400 x 400, on white, with soft edges."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    EXAMPLES[name](ImageDraw.Draw(image))
    image = ImageOps.mirror(image) if name in TOES_LEFT else image
    return image.filter(ImageFilter.GaussianBlur(1.2))


def main(argv: Sequence[str] | None = None) -> int:
    """Draws every example; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=FOLDERS, metavar="FOLDER")
    folders: list[Path] = parser.parse_args(argv).folders
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in EXAMPLES:
            draw_example(name).save(folder / f"{name}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
