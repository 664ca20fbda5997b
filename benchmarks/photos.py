"""How well are photos classified, beside the tutorial's way?

DIR holds a folder of photos a kind. Kinds that are among the ten classes count for the accuracy (any of the three kinds
of shoes does for `shoes`); hat, shorts and skirt are not, and ought to be told apart by `ood_score`. The tutorial's
way is grey, resized to 28x28, inverted, with the same weights.

Few photos show single shoes or bags. So that what helps the photos does not hurt those, validation images are laid on
made grounds, coloured, and sent through the same preprocessing.

    FASHIONNET_DATA_DIR=... python benchmarks/photos.py DIR [--write benchmarks/results/photos]
"""

import argparse
import io
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.settings import read_settings
from model import (
    CLASSES,
    UNTOUCHED,
    WEIGHTS,
    Engine,
    Picture,
    cpu,
    create_engine,
    draw_canvas,
    draw_heat_map,
    examine,
    heat_map,
    list_artifacts,
    load_for_engine,
    occlusions,
)
from model.bulk import find_pictures
from model.data import FashionMnist
from model.decode import decode
from model.errors import DataError
from model.preprocess import WORKING_SIZE, preprocess
from model.training.outliers import auroc
from model.training.recipes import RECIPES
from model.training.run import training_splits

KINDS = {
    "t-shirt": {"T-shirt/top"}, "pants": {"Trouser"}, "longsleeve": {"Pullover"}, "dress": {"Dress"},
    "outwear": {"Coat"}, "shirt": {"Shirt"}, "shoes": {"Sandal", "Sneaker", "Ankle boot"},
}  # fmt: skip
STRANGERS = ("hat", "shorts", "skirt")


class Photos(NamedTuple):
    """The photos of a folder, in order."""

    kinds: NDArray[np.str_]
    files: list[Path]

    @property
    def mapped(self) -> NDArray[np.bool_]:
        """Which of them are of the ten classes."""
        return np.isin(self.kinds, list(KINDS))


def find_photos(folder: Path) -> Photos:
    """Every picture in the folders of known kinds."""
    found = [(kind, file) for kind in (*KINDS, *STRANGERS) for file in find_pictures([folder / kind])]
    found = [(kind, file) for kind, file in found if file.is_file()]
    return Photos(np.array([kind for kind, _ in found]), [file for _, file in found])


def ours(file: Path) -> Picture:
    """As the service does it."""
    return preprocess(file.read_bytes())


def tutorials(file: Path) -> Picture:
    """Grey, 28x28, inverted."""
    with Image.open(file) as photo:
        small = ImageOps.exif_transpose(photo).convert("L").resize((28, 28))
    return Picture(255 - np.asarray(small, np.uint8)[None], UNTOUCHED)


class Answers(NamedTuple):
    """What an engine says of all of them."""

    predicted: NDArray[np.int64]
    ood_scores: NDArray[np.float32]


def run(engine: Engine, pictures: list[Picture]) -> Answers:
    """All of them in one call, as the service does it."""
    findings = list(examine(engine, pictures))
    return Answers(
        np.array([finding.logits.argmax() for finding in findings]), np.array([f.ood_score for f in findings])
    )


def hits(photos: Photos, answers: Answers) -> NDArray[np.bool_]:
    """Which of the mapped photos are classified as what they show."""
    predicted = answers.predicted
    return np.array([CLASSES[predicted[i]] in KINDS[photos.kinds[i]] for i in np.flatnonzero(photos.mapped)])


def confusion(photos: Photos, answers: Answers) -> list[str]:
    """What every kind was taken for, as Markdown."""
    lines = ["| | n | " + " | ".join(CLASSES) + " | known |", "|---" * (len(CLASSES) + 3) + "|"]
    for kind in dict.fromkeys(photos.kinds.tolist()):
        of_kind = photos.kinds == kind
        counts = np.bincount(answers.predicted[of_kind], minlength=len(CLASSES))
        cells = [
            f"**{count}**" if CLASSES[i] in KINDS.get(kind, ()) else str(count or "") for i, count in enumerate(counts)
        ]
        known = (answers.ood_scores[of_kind] <= 1).mean()
        lines.append(f"| {kind} | {of_kind.sum()} | " + " | ".join(cells) + f" | {known:.0%} |")
    return lines


def report(photos: Photos) -> str:
    """Everything, as Markdown."""
    lines = ["| network | accuracy | tutorial's way | strangers, AUROC |", "|---|---|---|---|"]
    prepared, plainly = ([way(file) for file in photos.files] for way in (ours, tutorials))
    found = {name: (run(engine, prepared), run(engine, plainly)) for name, engine in engines().items()}
    lines += [f"| {name} {figures(photos, *answers)}" for name, answers in found.items()]
    names = read_settings().models_among(list(found))
    served = [(found[names.of(picture)][0], i) for i, picture in enumerate(prepared)]
    by_picture = Answers(*(np.array([answers[part][i] for answers, i in served]) for part in range(2)))
    lines.append(f"| **by the picture, as served** {figures(photos, by_picture, found[names.default][1])}")
    for name, (answers, _) in found.items():
        title = f"`{name}` (rows what the photo shows, columns the answer; known: `in_distribution`):"
        lines += ["", title, "", *confusion(photos, answers)]
    return "\n".join(lines)


def figures(photos: Photos, answers: Answers, plainly: Answers) -> str:
    """The cells of one row: accuracy, that of the tutorial's way, how well strangers are told apart."""
    known, strange = answers.ood_scores[photos.mapped], answers.ood_scores[~photos.mapped]
    apart = f"{auroc(known, strange):.3f}" if len(known) and len(strange) else "none there"
    right, plainly_right = hits(photos, answers), hits(photos, plainly)
    return f"| {right.mean():.1%} ({right.sum()} of {right.size}) | {plainly_right.mean():.1%} | {apart} |"


LAID_PER_CLASS = 60
LAID_SIZE, GROUND_SIZE = 88, 128


def on_grounds() -> str:
    """Accuracy, a class, on validation images that lie on grounds as clothes do in photos, as Markdown."""
    try:
        _, validation = training_splits(FashionMnist(read_settings().data_dir), RECIPES["best"], 1)
    except DataError as error:
        return f"Nothing was laid on made grounds: {error}"
    chosen = np.concatenate([np.flatnonzero(validation.labels == c)[:LAID_PER_CLASS] for c in range(len(CLASSES))])
    rng = np.random.default_rng(0)
    pictures = [preprocess(_encoded(laid(validation.images[i], rng), "PNG")) for i in chosen]
    lines = ["| laid on made grounds | all | " + " | ".join(CLASSES) + " |", "|---" * (len(CLASSES) + 2) + "|"]
    for name, engine in engines().items():
        right = (run(engine, pictures).predicted == validation.labels[chosen]).reshape(len(CLASSES), -1).mean(1)
        lines.append(f"| {name} | {right.mean():.1%} | " + " | ".join(f"{share:.0%}" for share in right) + " |")
    return "\n".join(lines)


def laid(image: NDArray[np.uint8], rng: np.random.Generator) -> Image.Image:
    """An image ``[28, 28]`` of the data set as an article of some colour on an uneven ground of another."""
    size = (LAID_SIZE, LAID_SIZE)
    bright = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float32)
    lit = Image.fromarray(((image > 8) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    shape = np.asarray(lit) > 127
    shades = Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).resize(
        (GROUND_SIZE,) * 2, Image.Resampling.BICUBIC
    )
    uneven = (np.asarray(shades, np.float32)[..., None] - 128) * 0.15 + rng.normal(0, 6, (GROUND_SIZE, GROUND_SIZE, 1))
    ground = rng.uniform(60, 220, 3) + uneven
    top, left = (GROUND_SIZE - LAID_SIZE) // 2 + rng.integers(-6, 7, 2)
    under = ground[top : top + LAID_SIZE, left : left + LAID_SIZE]
    under[shape] = ((255 - 0.85 * bright)[..., None] * rng.uniform(0.4, 1, 3))[shape]
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8))


def times() -> str:
    """What 12 megapixels and 28x28 take beyond decoding, and with it; and an explanation."""
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(60, 200, (300, 400, 3), np.uint8))
    fine = ground.resize((4000, 3000), Image.Resampling.BICUBIC)
    fine.paste((20, 40, 90), (1000, 500, 3000, 2600))
    large, small = _encoded(fine, "JPEG"), _encoded(Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)), "PNG")
    decoding = milliseconds(lambda: decode(large, needed=2 * WORKING_SIZE, untouched=28), 20)
    whole, tiny = milliseconds(lambda: preprocess(large), 20), milliseconds(lambda: preprocess(small), 2000)
    by_pillow = milliseconds(lambda: np.frombuffer(decode(small, untouched=28).image.tobytes(), np.uint8), 2000)
    explained = ", ".join(
        f"{milliseconds(lambda: explain(engine, large), 20):.0f} ms ({name})"  # noqa: B023 - called at once
        for name, engine in engines().items()
    )
    return (
        f"12 megapixels, JPEG: {whole:.1f} ms, {whole - decoding:.1f} ms beyond decoding; 28x28, PNG: {tiny:.3f} ms "
        f"(decoded by Pillow: {by_pillow:.3f}); "
        f"the former explained: {explained} (medians)."
    )


def explain(engine: Engine, content: bytes) -> bytes:
    """What POST /explain does, in two threads as well."""
    with ThreadPoolExecutor(1) as thread:
        canvas = thread.submit(draw_canvas, content)
        picture = preprocess(content)
        finding = next(examine(engine, [picture]))
        heat = heat_map(engine.run(occlusions(picture.image)).logits, int(finding.logits.argmax()))
        return draw_heat_map(canvas.result(), heat, picture.preprocessing)


def engines() -> dict[str, Engine]:
    """The engine of every committed network, by name."""
    return {
        name: create_engine("auto", load_for_engine("auto", WEIGHTS, name), cpu.usable_cores())
        for name in list_artifacts(WEIGHTS)
    }


def milliseconds(function: Callable[[], object], count: int) -> float:
    """The median time of ``count`` calls, after a warm-up."""
    times = []
    for _ in range(count + count // 5):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[count // 5 :])


def _encoded(image: Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Accuracy on photos, beside the tutorial's way.")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="with a folder a kind: " + ", ".join((*KINDS, *STRANGERS))
    )
    parser.add_argument("--write", type=Path, help="write NAME.md")
    arguments = parser.parse_args()
    photos = find_photos(arguments.folder)
    if not photos.mapped.any():
        parser.error(f"{arguments.folder} has no photo in a folder of a kind: {', '.join(KINDS)}")
    machine, today = f"{cpu.usable_cores()} cores of {cpu.cpu_name()}", datetime.now(UTC).date()
    made = f"{machine}; Python {platform.python_version()}; {today}. Made by `python benchmarks/photos.py DIR`."
    text = "\n".join([report(photos), "", on_grounds(), "", times(), "", made])
    print(text)
    if arguments.write:
        arguments.write.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
