"""Pictures as cameras, scanners and editors write them: each is answered as the same picture in a plain PNG is."""

import base64
import csv
import io
import itertools
import struct
import zlib
from collections.abc import Callable
from functools import partial

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms

from model.preprocessing.decode import decode
from tests.in_process import call
from tests.pictures import encode
from tests.problems import assert_problem
from tests.servers import ROOT

SIZE = 120
TURNED = {2: Image.Transpose.FLIP_LEFT_RIGHT, 6: Image.Transpose.ROTATE_90}
"""What a picture is stored as that an EXIF orientation turns upright."""


def boot(mode: str = "RGB") -> Image.Image:
    """A drawn ankle boot on white; turned by a quarter it looks like a bag."""
    return Image.open(ROOT / "examples" / "ankle-boot.png").resize((SIZE, SIZE)).convert(mode)


def grey(dtype: str, most: float) -> Image.Image:
    """The boot in values from 0 to ``most``."""
    return Image.fromarray((np.asarray(boot("L")) / 255 * most).astype(dtype))


def cut_out(paper: int) -> Image.Image:
    """The boot on transparent pixels; beneath them are ``paper`` and noise, which must not show."""
    pixels, alpha = np.asarray(boot()).copy(), np.where(np.asarray(boot("L")) < 250, 255, 0).astype(np.uint8)
    noise = np.random.default_rng(0).integers(paper, paper + 90, pixels.shape, np.uint8)
    pixels[alpha == 0] = noise[alpha == 0]
    image = Image.fromarray(pixels)
    image.putalpha(Image.fromarray(alpha))
    return image


def oriented(format_: str, orientation: int) -> bytes:
    """The boot as it comes from a camera held otherwise; for a HEIC the property irot or imir says so."""
    exif, image = Image.Exif(), boot().transpose(TURNED[orientation])
    exif[274] = orientation
    image.info["exif"] = exif.tobytes()
    return encode(image, format_, exif=exif.tobytes())


def animated(format_: str) -> bytes:
    """The boot, and frames or pages that show something else."""
    others = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("black", "red")]
    return encode(boot(), format_, save_all=True, append_images=others)


def with_chunk(name: bytes, data: bytes) -> bytes:
    """The boot as a PNG with a chunk behind the header."""
    png = encode(boot())
    return png[:33] + chunk(name, data) + png[33:]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def interlaced() -> bytes:
    """The boot as a PNG in the seven passes of the PNG specification, 8.2."""
    pixels, rows = np.asarray(boot("L")), b""
    for left, top, across, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                                    (0, 1, 1, 2)):  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::across])
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Rows of values of ``bits`` bits, the highest bit first."""
    planes = values[..., None] >> np.arange(bits)[::-1] & 1
    return np.packbits(planes.reshape(len(values), -1).astype(np.uint8), axis=1)


def see_through(bits: int) -> bytes:
    """The boot as a grey PNG of ``bits`` bits; its paper is of a grey that is transparent."""
    most, paper = 2**bits - 1, 2 ** (bits - 1) if bits > 1 else 0
    values = (np.asarray(boot("L")) / 255 * most).round().astype(int)
    values[values == paper] = 1 if bits == 1 else paper - 1
    values[np.asarray(boot("L")) > 250] = paper
    rows = b"".join(b"\0" + row.tobytes() for row in packed(values, bits))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, bits, 0, 0, 0, 0)), (b"tRNS", struct.pack(">H", paper)),
              (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(itertools.starmap(chunk, chunks))


def tiff(bits: int, white: int) -> bytes:
    """The boot as a grey TIFF of ``bits`` bits without a sign, white as the greatest value (1) or as 0 (0)."""
    shades = np.asarray(boot("L")) if white else 255 - np.asarray(boot("L"))
    values = (shades / 255 * (2**bits - 1)).round()
    pixels = packed(values.astype(int), 12).tobytes() if bits == 12 else values.astype(f"<u{bits // 8}").tobytes()
    tags = {256: SIZE, 257: SIZE, 258: bits, 259: 1, 262: white, 273: 0, 277: 1, 278: SIZE, 279: len(pixels)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def wide_gamut() -> bytes:
    """A profile like sRGB, with red and green exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"xXYZ").replace(b"gXYZ", b"rXYZ").replace(b"xXYZ", b"gXYZ")


def framed() -> Image.Image:
    """The boot on grey paper, with a white frame of one pixel."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    paper = Image.composite(
        boot(), Image.new("RGB", (SIZE, SIZE), "#b0b0b0"), boot("L").point(lambda v: 255 * (v < 250))
    )
    image.paste(paper.crop((1, 1, SIZE - 1, SIZE - 1)), (1, 1))
    return image


def panorama(width: int, height: int) -> Image.Image:
    page = Image.new("RGB", (width, height), "white")
    page.paste(boot(), ((width - SIZE) // 2, (height - SIZE) // 2))
    return page


PICTURES: dict[str, Callable[[], bytes]] = {
    "grey-of-16-bits.png": lambda: encode(grey("uint16", 65535)),
    "black-and-white.png": lambda: encode(boot("1")),
    "palette-with-transparency.png": lambda: encode(cut_out(0).quantize()),
    "grey-and-alpha.png": lambda: encode(cut_out(0).convert("LA")),
    "hidden-dark-colours.png": lambda: encode(cut_out(0)),
    "hidden-light-colours.webp": lambda: encode(cut_out(150), "WEBP", lossless=True, exact=True),
    "interlaced.png": interlaced,
    "gamma.png": lambda: with_chunk(b"gAMA", struct.pack(">I", 100_000)),
    "wide-gamut.jpg": lambda: encode(boot(), "JPEG", icc_profile=wide_gamut()),
    "cmyk-of-adobe.jpg": lambda: encode(boot("CMYK"), "JPEG"),
    "progressive.jpg": lambda: encode(boot(), "JPEG", progressive=True),
    "trailing-bytes.jpg": lambda: encode(boot(), "JPEG") + b"SEFT" * 100,
    "two-pictures.jpg": lambda: animated("MPO"),
    "animated.gif": lambda: animated("GIF"),
    "animated.webp": lambda: animated("WEBP"),
    "animated.png": lambda: animated("PNG"),
    "pages.tiff": lambda: animated("TIFF"),
    "float.tiff": lambda: encode(grey("float32", 1), "TIFF"),
    "big-endian.tiff": lambda: encode(grey(">u2", 65535), "TIFF"),
    "lab.tiff": lambda: encode(ImageCms.profileToProfile(boot(), ImageCms.createProfile("sRGB"),
                                                         ImageCms.createProfile("LAB"), outputMode="LAB"), "TIFF"),
    "fax.tif": lambda: encode(boot("1"), "TIFF", compression="group4"),
    "cmyk.tif": lambda: encode(boot("CMYK"), "TIFF"),
    "white-frame.png": lambda: encode(framed()),
    "wide.png": lambda: encode(panorama(3000, SIZE)),
    "tall.jpg": lambda: encode(panorama(SIZE, 3000), "JPEG"),
    "UPPER-CASE.BMP": lambda: encode(boot(), "BMP"),
    "a-png-named.JPG": lambda: encode(boot()),
    "a-webp-named.png": lambda: encode(boot(), "WEBP"),
    **{
        f"orientation-{number}.{format_.lower()}": partial(oriented, format_, number)
        for format_, number in itertools.product(("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"), TURNED)
    },
}  # fmt: skip
"""The boot as files of these names."""
TOLERANCES = {
    "black-and-white.png": 20,
    "float.tiff": 10,
    "fax.tif": 20,
    "white-frame.png": 25,
    "wide.png": 255,
    "tall.jpg": 255,
}
"""Of the mean difference of the model's input, 0..255; 4 for the others. Dots and few pixels look different."""
REFUSED = {"ICO": "ICO", "PPM": "PNM", "JPEG2000": "JPEG 2000", "TGA": "", "PCX": "", "PDF": "PDF"}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: make() for name, make in PICTURES.items()}


def answer(client: httpx.Client, content: bytes) -> dict:
    response = client.post("/predict?image=true", files={"file": content})
    assert response.status_code == 200, response.text
    return response.json()


def model_input(found: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found["image"].partition(",")[2]))), float)


def test_each_is_answered_as_the_plain_picture(client: httpx.Client, files):
    plain = answer(client, encode(boot()))
    assert (plain["label"], plain["model_choice"]) == ("Ankle boot", "picture with a plain background")
    for name, content in files.items():
        found = answer(client, content)
        assert (found["label"], found["model_choice"]) == (plain["label"], plain["model_choice"]), name
        assert np.abs(model_input(found) - model_input(plain)).mean() < TOLERANCES.get(name, 4), name


def shades(content: bytes) -> np.ndarray:
    """The grey of the decoded picture."""
    return np.asarray(decode(content).image.convert("L"), int)


@pytest.mark.parametrize(("bits", "difference"), [(1, 256), (2, 45), (4, 10), (8, 2), (16, 1)])
def test_a_transparent_grey_becomes_white(bits, difference):
    found, boot_alone = shades(see_through(bits)), np.asarray(boot("L"), int) <= 250
    assert set(found[~boot_alone]) == {255}
    assert np.abs(found - np.asarray(boot("L"), int))[boot_alone].mean() < difference


def test_a_transparent_colour_of_16_bits_becomes_white():
    values = (np.asarray(boot()).astype(int) * 257).astype(">u2")
    values[np.asarray(boot("L")) > 250] = (0x1234, 0x5678, 0x9ABC)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    chunks = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)),
        (b"IDAT", rows),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(itertools.starmap(chunk, chunks))
    assert np.abs(shades(png) - np.asarray(boot("L"), int)).max() <= 5


@pytest.mark.parametrize(("bits", "white"), [(8, 0), (8, 1), (12, 1), (16, 0), (16, 1)])
def test_a_grey_tiff_of_any_depth_has_the_shades_of_8_bits(bits, white):
    assert np.abs(shades(tiff(bits, white)) - np.asarray(boot("L"), int)).max() <= 1


def test_a_tiff_of_32_bits_without_a_sign_has_its_own_range():
    expected = np.asarray(boot("L"), float)
    expected = (expected - expected.min()) / (expected.max() - expected.min()) * 255
    assert np.abs(shades(tiff(32, 1)) - expected).max() <= 1


def test_a_folder_of_them_is_classified_by_the_command(files, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name, content in files.items():
        (tmp_path / "pictures" / name).write_bytes(content)
    done = call("predict", tmp_path / "pictures", "--out", tmp_path / "found.csv")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    with (tmp_path / "found.csv").open(newline="") as table:
        labels = {row["file"].rpartition("/")[2]: row["label"] for row in csv.DictReader(table)}
    assert labels == dict.fromkeys(files, "Ankle boot")


@pytest.mark.parametrize("format_", REFUSED)
def test_other_formats_are_refused_with_those_that_are_accepted(client: httpx.Client, format_):
    response = client.post("/predict", files={"file": encode(boot(), format_)})
    slug = "unknown-format" if REFUSED[format_] else "not-an-image"
    detail = assert_problem(response, 415, slug)
    assert f"the format {REFUSED[format_]};" in detail or not REFUSED[format_]
    assert ("and HEIC are accepted" if REFUSED[format_] else "or HEIC file") in detail


@pytest.mark.parametrize("paper", ["white", "noise"])
def test_a_tiny_picture_is_answered_with_a_warning(client: httpx.Client, paper):
    image = boot() if paper == "white" else Image.effect_noise((SIZE, SIZE), 200)
    found = answer(client, encode(image.resize((5, 5), Image.Resampling.NEAREST)))
    assert "The picture has only 5 x 5 pixels: send a larger one." in found["warnings"]
    assert not found["in_distribution"]
