"""What is served: networks, and engines that are made once, in the process that all workers are forked from."""

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from app.settings import Settings
from model import Engine, ModelCard, create_engine, list_artifacts
from model.engines import load_for_engine
from model.errors import ArtifactError


class Served(NamedTuple):
    """A network to serve."""

    card: ModelCard
    engine: Callable[[], Engine]
    """The engine: everybody's, or, where it has threads, which a fork leaves behind, a new one at each call."""


def require_served(settings: Settings) -> list[Served]:
    """Every network to serve; ends the process with one sentence where an artefact is missing or damaged."""
    try:
        return load_served(settings)
    except ArtifactError as error:
        sys.exit(f"fashionnet: {error}")


def load_served(settings: Settings) -> list[Served]:
    """Every artefact of the model folder, with the file that its engine needs, checked, and the engine.

    Raises:
        ArtifactError: one is missing, truncated or altered, or the default is not there.
    """
    names = list_artifacts(settings.model_dir)
    settings.models_among(names)
    return [_load(settings, name) for name in names]


def _load(settings: Settings, name: str) -> Served:
    artifact = load_for_engine(settings.engine, settings.model_dir, name)
    make = partial(create_engine, settings.engine, artifact, settings.threads)
    if settings.threads > 1 or settings.engine == "torch":
        return Served(artifact.card, make)
    engine = make()
    return Served(artifact.card, lambda: engine)
