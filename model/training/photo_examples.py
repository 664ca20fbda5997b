"""The examples of a run on photos: photos in memory, split by sender, and images of Fashion-MNIST to draw."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.cpu import usable_cores
from model.data import Split
from model.errors import ImageError, TrainingError
from model.network import PHOTO_OUTPUTS
from model.photos import Photos, assign_folds, read_training_photos
from model.preprocessing.decode import decode
from model.preprocessing.fit import squeeze
from model.training.augment import derived_seed
from model.training.loop import Examples, RunConfig
from model.training.photo_batches import PHOTO_SIZE, PhotoTensors
from model.training.synthesis import draw_articles, draw_backgrounds

_VALIDATION = 12  # purpose of a seed
DRAWN_VALIDATION = 500
"""Images of Fashion-MNIST that are drawn on backgrounds, besides the photos, to validate."""


def checksum(photos: Photos) -> str:
    """Returns the SHA-256 of the list of photos with their classes and senders."""
    rows = zip((file.stem for file in photos.files), photos.classes, photos.senders, strict=True)
    text = "\n".join(",".join(row) for row in rows)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()  # file names may not be UTF-8


def load_examples(config: RunConfig, train: Split, validation: Split) -> tuple[PhotoTensors, Examples]:
    """Returns what trains and what validates a run on photos.

    Args:
        config: of the run.
        train: images of Fashion-MNIST to draw while training.
        validation: other images, some of which are drawn on backgrounds to validate.

    Raises:
        DataError: the photos cannot be found.
        TrainingError: the folder has other photos than at the start of the run, too few, or one cannot be read.
    """
    photos, stored_size = read_training_photos(Path(config.photos_dir)), config.recipe.photo_mix.stored_size
    if checksum(photos) != config.photos:
        raise TrainingError(
            f"{config.photos_dir} holds other photos than the run started with: name the original folder by "
            "--photos-dir, or start a new run."
        )
    seen = training_rows(photos, config)
    most = None if config.limit is None else config.limit // 10  # photos take longer
    chosen, held_out = (photos.take(np.flatnonzero(rows)).first(most) for rows in (seen, ~seen))
    for some, work in ((chosen, "train"), (held_out, "validate")):
        if not some.sets[:, :-1].any() and not (some is held_out and config.fold is None):
            raise TrainingError(
                f"{config.photos_dir} leaves no photo of the ten classes to {work} the network (fold "
                f"{'none' if config.fold is None else config.fold}): add photos of other people."
            )
    tensors = PhotoTensors(
        torch.from_numpy(load(chosen, stored_size)),
        torch.from_numpy(chosen.sets),
        torch.from_numpy(np.array(train.images)),
        torch.from_numpy(train.labels.astype(np.int64)),
    )
    pictures, sets = draw_validation(tensors, validation)
    photographs = torch.from_numpy(load(held_out, PHOTO_SIZE))
    return tensors, Examples(torch.cat([photographs, pictures]), torch.cat([torch.from_numpy(held_out.sets), sets]))


def training_rows(photos: Photos, config: RunConfig) -> NDArray[np.bool_]:
    """Returns which photos train the run, bool ``[N]``; the others are held out."""
    rows: NDArray[np.bool_] = assign_folds(photos.senders, config.folds) != config.fold
    rows &= photos.kinds != config.left_out
    return rows


def draw_validation(tensors: PhotoTensors, validation: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images of Fashion-MNIST on backgrounds, uint8 ``[M, S, S, 3]``, and their sets, bool ``[M, 11]``."""
    torch.manual_seed(derived_seed(_VALIDATION))
    chosen = validation.take(np.arange(min(DRAWN_VALIDATION, len(validation.labels))))
    drawn = []
    for images in torch.split(torch.from_numpy(np.array(chosen.images)), 50):
        backgrounds = draw_backgrounds(tensors.photos[torch.randint(len(tensors.photos), (len(images),))], PHOTO_SIZE)
        drawn.append(draw_articles(images, backgrounds).permute(0, 2, 3, 1).to(torch.uint8))
    sets = torch.nn.functional.one_hot(torch.from_numpy(chosen.labels.astype(np.int64)), PHOTO_OUTPUTS).bool()
    return torch.cat(drawn), sets


def load(photos: Photos, size: int) -> NDArray[np.uint8]:
    """Returns the photos in RGB, squeezed into a square: uint8 ``[N, size, size, 3]``."""

    def load_one(path: Path) -> NDArray[np.uint8]:
        try:
            return squeeze(decode(path.read_bytes(), min_edge=2 * size).image, size)
        except (ImageError, OSError) as error:
            raise TrainingError(f"{path} cannot be used: {error}") from error

    pixels = np.empty((len(photos.files), size, size, 3), np.uint8)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for index, picture in enumerate(pool.map(load_one, photos.files)):
            pixels[index] = picture
    return pixels
