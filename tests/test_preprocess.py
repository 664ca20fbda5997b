import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from model.errors import DamagedImage, EmptyImage, ImageError, NotAnImage, TooManyPixels, UnknownFormat
from model.preprocess import FORMATS, preprocess
from tests.pictures import encode, grey_png, random_image, trousers


@given(arrays(np.uint8, (28, 28)))
def test_a_28x28_grey_picture_is_used_exactly_as_it_is(pixels):
    assert (preprocess(encode(Image.fromarray(pixels))) == pixels).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_in_content_is_grey_whatever_the_mode(mode):
    pixels = random_image()
    assert (preprocess(encode(Image.fromarray(pixels).convert(mode))) == pixels).all()


def test_a_16_bit_grey_picture_of_28x28_keeps_its_upper_byte():
    pixels = random_image()
    assert (preprocess(encode(Image.fromarray(pixels.astype(np.uint16) * 257))) == pixels).all()


@pytest.mark.parametrize("format_", FORMATS)
def test_every_accepted_format_gives_the_same_article(format_):
    expected = preprocess(encode(trousers()))
    difference = np.abs(preprocess(encode(trousers(), format_)).astype(int) - expected)
    assert difference.mean() < 4  # JPEG, WebP and GIF lose a little


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"])
def test_every_mode_is_brought_into_the_convention(mode):
    image = trousers("L") if mode in ("I;16", "I", "F", "LA") else trousers()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) * 257)
    pixels = preprocess(encode(image.convert(mode), "TIFF" if mode not in ("LA", "P", "RGBA") else "PNG"))
    assert pixels.shape == (28, 28)
    assert pixels.dtype == np.uint8
    assert (pixels[[0, -1], 0] == 0).all(), "the background is exactly 0"
    assert pixels[1, 14] > 150, "the article is light"


def test_the_article_fills_the_height_and_is_centred_with_the_odd_pixel_on_the_left():
    page = Image.new("L", (400, 300), 255)
    page.paste(0, (50, 20, 50 + 90, 20 + 280))  # 90 x 280: 9 of 28 columns
    columns = np.flatnonzero(preprocess(encode(page)).any(0))
    assert (columns[0], columns[-1]) == (10, 18)  # ceil(19 / 2) = 10 empty columns on the left


def test_dark_on_light_and_light_on_dark_are_the_same_article():
    dark_on_light = preprocess(encode(trousers(ink="black", paper="white")))
    light_on_dark = preprocess(encode(trousers(ink="white", paper="black")))
    assert (dark_on_light == light_on_dark).all()


def test_exif_orientation_is_followed():
    upright = trousers()
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 270 degrees
    lying = encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    difference = np.abs(preprocess(lying).astype(int) - preprocess(encode(upright)))
    assert difference.mean() < 2


def test_alpha_is_laid_on_white():
    image = trousers("RGBA")
    image.putalpha(Image.fromarray(np.where(np.asarray(image)[:, :, 0] == 255, 0, 255).astype(np.uint8)))
    assert (preprocess(encode(image)) == preprocess(encode(trousers()))).all()


def test_only_the_first_frame_of_an_animation_counts():
    frames = [trousers(), Image.new("RGB", (300, 300), "black")]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (preprocess(animated) == preprocess(encode(frames[0], "GIF"))).all()


def test_an_empty_page_gives_an_empty_image():
    assert not preprocess(encode(Image.new("RGB", (100, 60), "white"))).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (29, 28), (2000, 3)])
def test_odd_sizes_are_taken(size):
    assert preprocess(encode(Image.new("L", size, 90))).shape == (28, 28)


@pytest.mark.parametrize("values", [np.nan, np.inf, -np.inf, 3e38, 0.0])
def test_floats_that_are_no_grey_values_do_no_harm(values):
    image = Image.fromarray(np.full((40, 40), values, np.float32))
    assert preprocess(encode(image, "TIFF")).shape == (28, 28)


def test_nothing_is_refused_with_the_remedy():
    with pytest.raises(EmptyImage, match="send the content"):
        preprocess(b"")


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 100, b"GIF", b"<html></html>", b"PK\x03\x04"])
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(NotAnImage, match="PNG, JPEG"):
        preprocess(content)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x1cftypavif", "AVIF"),
        (b"<svg/>", "SVG"),
    ],
)
def test_a_picture_of_another_format_is_refused_by_its_name(content, name):
    with pytest.raises(UnknownFormat, match=f"{name} file.*convert it"):
        preprocess(content)


def test_formats_that_pillow_knows_and_we_do_not_accept_are_refused():
    for format_ in ("PPM", "ICO", "PCX", "TGA"):
        with pytest.raises((UnknownFormat, NotAnImage)):
            preprocess(encode(trousers(), format_))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_picture_is_refused(format_):
    content = encode(trousers(), format_)
    with pytest.raises(DamagedImage, match="truncated or damaged"):
        preprocess(content[: len(content) // 2])


def test_too_many_pixels_are_refused_before_they_are_decoded():
    with pytest.raises(TooManyPixels, match="300 x 300"):
        preprocess(encode(trousers()), max_pixels=1000)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused(side):
    bomb = encode(Image.new("1", (side, side)))
    assert len(bomb) < 100_000
    with pytest.raises(TooManyPixels):
        preprocess(bomb)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_whatever_is_done_to_a_file_it_is_a_picture_or_an_image_error(format_, data):
    content = bytearray(encode(trousers(size=40), format_))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(ImageError):
        assert preprocess(bytes(content[:cut])).shape == (28, 28)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_an_image_error(content):
    with pytest.raises(ImageError):
        preprocess(content)


def test_the_file_is_not_needed_afterwards():
    """What comes back owns its memory, or shares what nobody changes."""
    buffer = io.BytesIO(grey_png())
    pixels = preprocess(buffer.getvalue())
    assert pixels.sum() == preprocess(grey_png()).sum()
