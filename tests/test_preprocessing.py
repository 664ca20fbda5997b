import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from model.errors import DamagedImage, EmptyImage, ImageError, NotAnImage, TooManyPixels, UnknownFormat
from model.inputs import ModelInput
from model.installation import install_command
from model.preprocessing.decode import DecodeLimits, decode, decode_native_png
from model.preprocessing.fit import fit_data_set
from model.preprocessing.formats import FORMATS
from model.preprocessing.pipeline import NOT_A_PRODUCT_PICTURE, PictureKind, preprocess
from tests.pictures import COLOUR_SQUARE, FILES, article, encode, grey_png, random_image, scene, trousers

WRITTEN = [name for name in FORMATS if name != "HEIF"]
"""The formats that Pillow writes."""


def pixels_of(content, **options):
    return preprocess(content, **options).image


def for_photos(content):
    """The picture for a model that takes colour squares."""
    return preprocess(content, input_of=lambda _: COLOUR_SQUARE)


@given(arrays(np.uint8, (28, 28)))
def test_a_28x28_grey_picture_is_used_exactly_as_it_is(pixels):
    pixels[0, 0] = 0  # not a light ground
    assert (pixels_of(encode(Image.fromarray(pixels))) == pixels).all()


@given(arrays(np.uint8, (28, 28), elements=st.integers(0, 3)), st.integers(0, 9))
def test_small_pngs_have_a_decoder_of_their_own_that_sees_the_same(pixels, level):
    content = encode(Image.fromarray(pixels), compress_level=level)
    assert (decode_native_png(content) == pixels).all()
    assert (np.asarray(decode(content, untouched=True).image) == pixels).all()


@settings(deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4), st.booleans())
def test_a_small_png_that_was_tampered_with_is_what_pillow_makes_of_it_or_refused(place, bytes_, cut):
    content = encode(trousers("L").resize((28, 28)))
    content = content[:place] + (b"" if cut else bytes_ + content[place + len(bytes_) :])
    small = decode_native_png(content)
    if small is None:
        with contextlib.suppress(ImageError):
            preprocess(content)
    else:
        with contextlib.suppress(ImageError):
            assert (np.asarray(decode(content, untouched=True).image) == small).all()


@pytest.mark.parametrize(
    "image", [Image.new("L", (27, 28)), Image.new("RGB", (28, 28)), Image.new("1", (28, 28)), Image.new("P", (28, 28))]
)
def test_other_pngs_are_left_to_pillow(image):
    assert decode_native_png(encode(image)) is None


def test_a_small_png_with_a_text_before_its_pixels_is_left_to_pillow_which_bounds_it():
    content = encode(Image.new("L", (28, 28)))
    text = b"zTXtbomb\0\0" + zlib.compress(bytes(900_000))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    with_text = content[:33] + chunk + content[33:]
    assert decode_native_png(with_text) is None
    assert not pixels_of(with_text).any()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_in_content_is_grey_whatever_the_mode(mode):
    pixels = random_image()
    assert (pixels_of(encode(Image.fromarray(pixels).convert(mode))) == pixels).all()


def test_a_16_bit_grey_picture_of_28x28_keeps_its_upper_byte():
    pixels = random_image()
    assert (pixels_of(encode(Image.fromarray(pixels.astype(np.uint16) * 257))) == pixels).all()


@pytest.mark.parametrize("format_", FORMATS)
def test_every_accepted_format_gives_the_same_article(format_):
    expected = pixels_of(encode(trousers()))
    difference = np.abs(pixels_of(article(format_)).astype(int) - expected)
    assert difference.mean() < 4  # some lose a little, and the HEIC is smaller


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"])
def test_every_mode_is_brought_into_the_convention(mode):
    image = trousers("L") if mode in ("I;16", "I", "F", "LA") else trousers()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) * 257)
    pixels = pixels_of(encode(image.convert(mode), "TIFF" if mode not in ("LA", "P", "RGBA") else "PNG"))
    assert pixels.shape == (28, 28)
    assert pixels.dtype == np.uint8
    assert (pixels[[0, -1], 0] == 0).all(), "the background is exactly 0"
    assert pixels[1, 14] > 150, "the article is light"


def test_the_article_fills_the_height_and_is_centred_with_the_odd_pixel_on_the_left():
    page = Image.new("L", (400, 300), 255)
    page.paste(0, (50, 20, 50 + 90, 20 + 280))  # 90 x 280: 9 of 28 columns
    columns = np.flatnonzero(pixels_of(encode(page)).any(0))
    assert (columns[0], columns[-1]) == (10, 18)  # ceil(19 / 2) = 10 empty columns on the left


def test_dark_on_light_and_light_on_dark_are_the_same_article():
    dark_on_light = pixels_of(encode(trousers(ink="black", paper="white"))).astype(int)
    light_on_dark = pixels_of(encode(trousers(ink="white", paper="black")))
    np.testing.assert_allclose(dark_on_light, light_on_dark.astype(int), atol=1)  # a half is rounded up in both


def test_alpha_is_laid_on_white():
    image = trousers("RGBA")
    image.putalpha(Image.fromarray(np.where(np.asarray(image)[:, :, 0] == 255, 0, 255).astype(np.uint8)))
    assert (pixels_of(encode(image)) == pixels_of(encode(trousers()))).all()


def test_an_empty_page_gives_an_empty_image():
    assert not pixels_of(encode(Image.new("RGB", (100, 60), "white"))).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (29, 28), (2000, 3)])
def test_odd_sizes_are_taken(size):
    assert pixels_of(encode(Image.new("L", size, 90))).shape == (28, 28)


@pytest.mark.parametrize("values", [np.nan, np.inf, -np.inf, 3e38, 0.0])
def test_floats_that_are_no_grey_values_do_no_harm(values):
    image = Image.fromarray(np.full((40, 40), values, np.float32))
    assert pixels_of(encode(image, "TIFF")).shape == (28, 28)


def test_nothing_is_refused_with_the_remedy():
    with pytest.raises(EmptyImage, match="send the content"):
        pixels_of(b"")


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 100, b"GIF", b"<html></html>", b"PK\x03\x04"])
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(NotAnImage, match="PNG, JPEG"):
        pixels_of(content)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        (encode(trousers(), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "12-bit JPEG"),
        (b"<svg/>", "SVG"),
    ],
)
def test_a_picture_of_another_format_is_refused_by_its_name(content, name):
    with pytest.raises(UnknownFormat, match=f"the format {name};.*convert it"):
        pixels_of(content)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x1cftypavif", "AVIF"),
        (b"\x00\x00\x00\x1cftyphevc\0\0\0\0mif1heicmiaf", "HEIC"),
        (b"\x00\x00\x00\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\x00\x00\x00\x1cftypavis\0\0\0\0mif1avifmiaf", "AVIF"),
        (article("AVIF"), "AVIF"),
        (article("HEIF"), "HEIC"),
    ],
)
def test_a_picture_of_a_phone_is_refused_by_its_name_without_its_decoder(content, name, monkeypatch):
    monkeypatch.setattr("model.preprocessing.decode.FORMATS", ("PNG", "JPEG"))
    with pytest.raises(UnknownFormat, match=f"the format {name}; PNG and JPEG are accepted: convert it first") as error:
        pixels_of(content)
    assert (f"install its decoder: {install_command('heic')}." in str(error.value)) == (name == "HEIC")


@pytest.mark.parametrize("format_", ["AVIF", "HEIF"])
@pytest.mark.parametrize("kept", [12, 100, 400, -1])
def test_a_truncated_picture_of_a_phone_is_damaged_not_unknown(format_, kept):
    with pytest.raises(DamagedImage):
        pixels_of(article(format_)[:kept])


@pytest.mark.parametrize("name", ["turned", "two-pictures", "transparent"])
def test_a_heic_is_upright_on_white_and_of_several_pictures_the_first(name):
    decoded = decode((FILES / f"{name}.heic").read_bytes())
    expected = np.asarray(trousers(size=128).resize(decoded.image.size), int)
    assert np.abs(np.asarray(decoded.image.convert("RGB"), int) - expected).mean() < 4
    assert decoded.transparent == (name == "transparent")


def test_of_a_heic_of_a_phone_only_the_thumbnail_is_decoded():
    """The file has 3024x4032 pixels in tiles, turned by its property irot, and a thumbnail of 240x320."""
    content, of_thumbnail = (FILES / "phone.heic").read_bytes(), DecodeLimits(memory=8 * 240 * 320)
    decoded = decode(content, of_thumbnail, min_edge=240)
    assert (decoded.size, decoded.image.size) == ((3024, 4032), (240, 320))
    expected = Image.new("RGB", (240, 320), "white")
    expected.paste(trousers(size=240), (0, 40))
    assert np.abs(np.asarray(decoded.image, int) - np.asarray(expected)).mean() < 4
    with pytest.raises(TooManyPixels, match="take 98 MB to decode from HEIC"):
        decode(content, of_thumbnail, min_edge=241)
    assert preprocess(content, limits=of_thumbnail).preprocessing.crop_box == pytest.approx(
        (887, 702, 2117, 3343), abs=40
    )


def test_formats_that_pillow_knows_and_we_do_not_accept_are_refused():
    for format_ in ("PPM", "ICO", "PCX", "TGA"):
        with pytest.raises((UnknownFormat, NotAnImage)):
            pixels_of(encode(trousers(), format_))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_picture_is_refused(format_):
    content = encode(trousers(), format_)
    with pytest.raises(DamagedImage, match="truncated or damaged"):
        pixels_of(content[: len(content) // 2])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}])
def test_a_jpeg_without_its_end_is_answered_and_one_without_its_last_rows_is_not(options):
    content = encode(scene("wood")[0], "JPEG", **options)
    assert (pixels_of(content[:-2]) == pixels_of(content)).all()
    with pytest.raises(DamagedImage, match="truncated or damaged"):
        pixels_of(content[: -len(content) // 20])


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"tEXt", b"iCCP"])
@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "after them"])
def test_metadata_that_is_too_large_is_skipped(name, place):
    content, large = encode(trousers()), zlib.compress(bytes(2_000_000))
    body = {
        b"zTXt": b"key\0\0" + large,
        b"iTXt": b"key\0\1\0\0\0" + large,
        b"tEXt": b"key\0" + b"x" * 2_000_000,
        b"iCCP": b"key\0\0" + large,
    }[name]
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    assert (pixels_of(content[:place] + chunk + content[place:]) == pixels_of(content)).all()


def test_too_many_pixels_are_refused_before_they_are_decoded():
    with pytest.raises(TooManyPixels, match="300 x 300"):
        pixels_of(encode(trousers()), limits=DecodeLimits(1000))


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused(side):
    bomb = encode(Image.new("1", (side, side)))
    assert len(bomb) < 100_000
    with pytest.raises(TooManyPixels):
        pixels_of(bomb)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_whatever_is_done_to_a_file_it_is_a_picture_or_an_image_error(format_, data):
    content = bytearray(article(format_, size=40))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(ImageError):
        assert pixels_of(bytes(content[:cut])).shape == (28, 28)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.integers(0, 3500), st.integers(0, 255), min_size=1, max_size=4))
def test_whatever_is_done_to_the_boxes_of_a_photo_of_a_phone_it_is_decoded_or_an_image_error(changes):
    content = bytearray((FILES / "phone.heic").read_bytes())
    for position, value in changes.items():
        content[position] = value
    with contextlib.suppress(ImageError):
        decode(bytes(content), DecodeLimits(memory=8 * 240 * 320), min_edge=192)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_an_image_error(content):
    with pytest.raises(ImageError):
        pixels_of(content)


def test_what_was_done_is_told():
    page = trousers(size=900).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6
    told = preprocess(encode(page, "JPEG", exif=exif, quality=95)).preprocessing
    assert told.steps[0] == "turned upright, as its EXIF says"
    assert told.steps[1:3] == ["plain background removed", "cropped to the article"]
    assert told.inverted
    assert told.background == "#ffffff"
    expected = (88 * 3, 20 * 3, 210 * 3, 282 * 3)
    assert told.crop_box == pytest.approx(expected, abs=10), "in the pixels of the upright picture"
    assert told.coverage == pytest.approx(0.29, abs=0.02)


def test_the_crop_box_is_in_the_pixels_of_the_whole_picture_also_when_it_was_turned():
    page = Image.new("L", (600, 300), 255)
    page.paste(0, (100, 50, 200, 250))
    exif = Image.Exif()
    exif[274] = 6
    told = preprocess(encode(page, "JPEG", exif=exif, quality=95)).preprocessing
    assert told.crop_box == pytest.approx((50, 100, 250, 200), abs=5)


def test_light_on_dark_is_not_inverted_and_transparency_is_told():
    assert not preprocess(encode(trousers(ink="white", paper="black"))).preprocessing.inverted
    assert preprocess(encode(trousers("RGBA"))).preprocessing.steps[0] == "transparency laid on white"


def test_a_28x28_grey_png_with_a_transparent_grey_is_laid_on_white_as_one_with_an_alpha_channel():
    pixels = np.zeros((28, 28), np.uint8)
    pixels[5:23, 9:19] = 40
    with_alpha = Image.merge("LA", [Image.fromarray(pixels), Image.fromarray((pixels > 0).astype(np.uint8) * 255)])
    one, other = preprocess(encode(Image.fromarray(pixels), transparency=0)), preprocess(encode(with_alpha))
    assert one.preprocessing == other.preprocessing
    assert one.preprocessing.steps[0] == "transparency laid on white"
    assert (one.image == other.image).all()


def test_an_untouched_picture_says_so():
    told = preprocess(grey_png())
    assert told.preprocessing.steps == ["28x28 and grey: used as it is"]
    assert told.warnings == ()


@pytest.mark.parametrize(
    ("picture", "warning"),
    [
        (Image.new("RGB", (100, 60), "white"), "Nothing stands out"),
        (trousers(ink="#f4f4f4", paper="#ffffff"), "hardly differs from its background"),
    ],
)
def test_what_may_be_wrong_is_said(picture, warning):
    assert warning in " ".join(preprocess(encode(picture)).warnings)


def test_a_small_article_is_said_to_be_small():
    page = Image.new("RGB", (1000, 1000), "white")
    page.paste(trousers().resize((150, 150)), (400, 400))
    (warning,) = preprocess(encode(page)).warnings
    assert warning == "The article fills only 1% of the picture: crop it closer."


KINDS = {
    PictureKind.DATA_SET: [
        grey_png(),
        encode(Image.fromarray(random_image()).convert("RGB")),
        encode(Image.fromarray(random_image()), "TIFF"),
    ],
    PictureKind.PLAIN: [
        encode(trousers()),
        encode(trousers(ink="white", paper="black"), "JPEG"),
        encode(trousers(size=28)),
        encode(Image.new("L", (29, 28), 90)),
        encode(Image.new("RGB", (100, 60), "white")),
    ],
    PictureKind.PHOTO: [
        *(encode(scene(background)[0], "JPEG") for background in ("shaded", "wood", "tiles", "dark")),
        encode(scene("wood")[0].resize((24, 24))),
    ],
}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        pytest.param(kind, content, id=f"{kind.name}-{number}")
        for kind, contents in KINDS.items()
        for number, content in enumerate(contents)
    ],
)
def test_the_kind_of_a_picture_decides_on_the_input(kind, content):
    """Whatever the input is; a picture with a plain background may still go to a model for photos."""
    default = preprocess(content)
    assert default.kind is kind
    assert default.image.shape == (28, 28)
    assert for_photos(content).kind is kind
    by_kind = preprocess(content, input_of=lambda of: COLOUR_SQUARE if of is PictureKind.PHOTO else ModelInput())
    assert by_kind.image.shape == ((224, 224, 3) if kind is PictureKind.PHOTO else (28, 28))
    assert for_photos(content).image.shape == (224, 224, 3)


@pytest.mark.parametrize("content", KINDS[PictureKind.PHOTO], ids=["shaded", "wood", "tiles", "dark", "small"])
def test_a_photo_is_said_to_be_no_product_picture_by_models_for_these_alone(content):
    assert preprocess(content).warnings == (NOT_A_PRODUCT_PICTURE,)
    assert "what has the colour of the border removed" in preprocess(content).preprocessing.steps
    assert for_photos(content).warnings == ()
    assert NOT_A_PRODUCT_PICTURE not in preprocess(KINDS[PictureKind.PLAIN][0]).warnings


@pytest.mark.parametrize("format_", WRITTEN)
@pytest.mark.parametrize("size", [(300, 300), (640, 200), (90, 400), (224, 224), (1, 1), (3000, 2)])
def test_a_colour_square_has_the_shape_of_the_input_whatever_the_picture(format_, size):
    picture = for_photos(encode(scene("wood")[0].resize(size), format_))
    assert picture.image.shape == (224, 224, 3)
    assert picture.image.dtype == np.uint8


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16", "F"])
def test_every_mode_becomes_a_colour_square(mode):
    image = Image.fromarray(np.full((50, 40), 40_000, np.uint16)) if mode == "I;16" else trousers().convert(mode)
    assert for_photos(encode(image, "TIFF")).image.shape == (224, 224, 3)


def test_a_colour_square_shows_the_whole_picture_in_its_colours():
    """Nothing is cut off, and each axis has its own factor."""
    page = Image.new("RGB", (400, 100))
    quarters = {(0, 0): "#c81e1e", (200, 0): "#1ec81e", (0, 50): "#1e1ec8", (200, 50): "#e6dc28"}
    for corner, colour in quarters.items():
        page.paste(colour, (*corner, corner[0] + 200, corner[1] + 50))
    for format_, tolerance in (("PNG", 0), ("JPEG", 6)):
        seen = for_photos(encode(page, format_, quality=95)).image
        for (left, top), colour in quarters.items():
            down, across = (112 if top else 0), (112 if left else 0)
            part = seen[down + 4 : down + 108, across + 4 : across + 108].astype(int)
            assert np.abs(part - Image.new("RGB", (1, 1), colour).getpixel((0, 0))).max() <= tolerance


def test_a_picture_of_the_size_of_the_input_is_used_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    assert (for_photos(encode(Image.fromarray(noise))).image == noise).all()


def test_a_large_photo_is_averaged_as_it_is_reduced():
    pixels = np.zeros((1600, 1600, 3), np.uint8)
    pixels[::2] = 255
    assert np.abs(for_photos(encode(Image.fromarray(pixels))).image.astype(int) - 127).max() <= 10


def test_the_colour_square_of_a_photo_follows_its_exif_orientation():
    upright = scene("wood")[0].resize((300, 200))
    exif = Image.Exif()
    exif[274] = 6
    lying = for_photos(encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95))
    difference = np.abs(lying.image.astype(int) - for_photos(encode(upright)).image)
    assert difference.mean() < 3
    assert lying.preprocessing.steps == [
        "turned upright, as its EXIF says",
        "the whole picture in colour, scaled to 224x224 pixels",
    ]


def test_the_colour_square_has_alpha_on_white():
    image = Image.new("RGBA", (60, 40), (200, 30, 30, 0))
    image.paste((200, 30, 30, 255), (0, 0, 30, 40))
    picture = for_photos(encode(image))
    assert picture.preprocessing.steps[0] == "transparency laid on white"
    assert picture.image[80, 20].tolist() == [200, 30, 30]
    assert picture.image[80, 140].tolist() == [255, 255, 255]


def test_a_colour_square_has_no_box_because_nothing_is_cut_off():
    told = for_photos(encode(scene("wood")[0])).preprocessing
    assert (told.crop_box, told.placement, told.coverage, told.inverted) == (None, None, None, False)


def test_a_28x28_grey_picture_is_enlarged_for_a_model_that_takes_larger_ones():
    pixels = random_image()
    pictures = [for_photos(encode(Image.fromarray(pixels).convert(mode))) for mode in ("L", "RGB")]
    for picture in pictures:
        assert picture.kind is PictureKind.DATA_SET
        assert picture.image.shape == (224, 224, 3)
        assert (picture.image == picture.image[..., :1]).all(), "grey"
        assert picture.preprocessing.steps == ["28x28 and grey: enlarged to the model's size"]
        assert picture.warnings == ()
        reduced = Image.fromarray(picture.image).convert("L").resize((28, 28), Image.Resampling.BOX)
        assert np.corrcoef(np.asarray(reduced).ravel(), pixels.ravel())[0, 1] > 0.94
    assert (pictures[0].image == pictures[1].image).all()


def test_images_of_the_data_set_are_fitted_as_one_of_them_sent_alone_is():
    images = np.stack([random_image(seed) for seed in range(3)])
    fitted = fit_data_set(images, COLOUR_SQUARE)
    assert fitted.shape == (3, 224, 224, 3)
    for seed in range(3):
        assert (fitted[seed] == for_photos(grey_png(seed)).image).all()
    assert (fit_data_set(images, ModelInput()) == images).all()
    assert fit_data_set(images[:0], COLOUR_SQUARE).shape == (0, 224, 224, 3)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", EmptyImage), (b"hello", NotAnImage), (b"%PDF-1.7", UnknownFormat), (encode(trousers())[:300], DamagedImage)],
    ids=["empty", "text", "pdf", "truncated"],
)
def test_a_model_for_photos_refuses_what_the_others_refuse(content, error):
    with pytest.raises(error):
        for_photos(content)
    with pytest.raises(TooManyPixels):
        preprocess(encode(trousers()), input_of=lambda _: COLOUR_SQUARE, limits=DecodeLimits(1000))


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "I;16"])
def test_a_large_picture_is_reduced_before_it_is_converted_and_looks_the_same(mode):
    image = trousers().resize((1400, 1000))
    sixteen_bits = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    content = encode(sixteen_bits if mode == "I;16" else image.convert(mode))
    whole, reduced = decode(content), decode(content, min_edge=100)
    assert reduced.image.size == (140, 100)
    assert whole.size == reduced.size == (1400, 1000)
    expected = np.asarray(whole.image.reduce(10), np.float32)
    assert np.abs(np.asarray(reduced.image, np.float32) - expected).max() <= 1


def test_a_long_narrow_picture_is_reduced_too():
    assert decode(encode(Image.new("L", (3, 9_000_000))), min_edge=100).image.size == (2, 4_500_000)


@pytest.mark.parametrize(
    ("options", "megabytes"),
    [(("RGB", "PNG"), 10), (("P", "PNG"), 2.5), (("RGB", "WEBP"), 40), (("RGB", "TIFF"), 20), (("RGB", "AVIF"), 25)],
)
def test_pictures_are_refused_by_the_memory_that_decoding_takes(options, megabytes):
    mode, kind = options
    content = encode(Image.new(mode, (2500, 1000)), kind)
    assert decode(content, DecodeLimits(memory=int(megabytes * 1e6))).size == (2500, 1000)
    with pytest.raises(
        TooManyPixels, match=rf"2500 x 1000 pixels, which take {megabytes:.0f} MB to decode from {kind}"
    ):
        decode(content, DecodeLimits(memory=int(megabytes * 1e6) - 1))


def test_a_jpeg_that_is_decoded_smaller_takes_less_memory_unless_it_is_progressive():
    image, limits = Image.new("RGB", (2000, 2000)), DecodeLimits(memory=1_000_000)
    assert decode(encode(image, "JPEG"), limits, min_edge=200).image.size == (250, 250)
    with pytest.raises(TooManyPixels):
        decode(encode(image, "JPEG"), limits)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", progressive=True)
    with pytest.raises(TooManyPixels):
        decode(buffer.getvalue(), limits, min_edge=200)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_upright_as_its_exif_says(kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.new("RGB", (600, 400), "white")
    image.paste("black", (0, 0, 200, 100))  # a corner
    content = encode(image, kind, exif=exif)
    decoded = decode(content, min_edge=100)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decoded.size == expected.size
    assert decoded.turned == (orientation > 1)
    small = np.asarray(expected.convert("RGB").resize(decoded.image.size), int)
    assert np.abs(np.asarray(decoded.image.convert("RGB"), int) - small).mean() < 5


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_frames_or_pages_the_first_is_used(kind):
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "lime", "blue")]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(decode(content).image.convert("RGB"), int) - (255, 0, 0)).max() < 5


def product_picture(size: int, mode: str) -> bytes:
    """A small picture of trousers: grey on white, in colour, or on nothing at all."""
    grey = trousers().convert("L").resize((size, size), Image.Resampling.BOX)
    if mode in ("LA", "RGBA"):
        picture = grey.convert(mode)
        picture.putalpha(grey.point(lambda value: 255 if value < 240 else 0))
        return encode(picture)
    return encode(grey.convert(mode))


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_a_28x28_picture_on_a_light_ground_is_treated_as_a_larger_one(mode):
    small, larger = (preprocess(product_picture(size, mode)) for size in (28, 30))
    assert small.kind is PictureKind.PLAIN
    assert small.preprocessing.inverted
    assert small.preprocessing.steps == larger.preprocessing.steps
    assert np.abs(small.image.astype(int) - larger.image).mean() < 25


def test_a_28x28_grey_picture_with_an_article_up_to_its_border_is_used_as_it_is():
    pixels = np.full((28, 28), 200, np.uint8)
    pixels[0, 0] = 0
    assert (preprocess(encode(Image.fromarray(pixels))).image == pixels).all()
