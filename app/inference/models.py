"""The models to serve: read, checked and, if that is possible, given their engines before worker processes fork."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.inference.shadow import require_shadow
from app.settings import Settings
from model import Engine, ModelCard, create_engine, list_artifacts
from model.engines import choose_engine, load_for_engine

logger = logging.getLogger("fashionnet")


class ServedModel(NamedTuple):
    """A model to serve."""

    card: ModelCard
    engine: Callable[[], Engine]
    """Returns the engine: the same at each call, or a new one if it owns threads, which do not survive a fork."""
    on_event_loop: bool
    """Whether single predictions run on the event loop instead of in a thread."""
    owns_threads: bool


def load_models(settings: Settings) -> list[ServedModel]:
    """Returns every model in the model folder.

    Raises:
        ArtifactError: an artefact is missing, truncated or altered, or the default model is not there, or the shadow
            model has nothing to be compared with.
    """
    names = list_artifacts(settings.model_dir)
    settings.models_among(names)
    models = [_load(settings, name) for name in names]
    if settings.shadow_model:
        require_shadow(settings.shadow_model, [model.card for model in models])
    return models


def load_tested_models(settings: Settings) -> list[ServedModel]:
    """Returns every model in the model folder after a prediction by each; raises as ``load_models``, or what fails.

    A process that will fork may call this, so engines that own threads are left to the processes that use them.
    """
    models = load_models(settings)
    for model in models:
        if not model.owns_threads:
            check_logits(model.card, model.engine().run(model.card.input.blank()[None]).logits[0])
    return models


def log_models(what: str, models: Iterable[ServedModel], settings: Settings) -> None:
    """Logs what happened to these models, in one line that names each, its version, its engine and where that runs."""
    logger.info("%s: %s", what, ", ".join(_described(model, settings) for model in models))


def _described(model: ServedModel, settings: Settings) -> str:
    engine, place = choose_engine(settings.engine, model.card), "event loop" if model.on_event_loop else "thread"
    return f"{model.card.name} {model.card.version} ({engine}, {place})"


def check_logits(card: ModelCard, logits: NDArray[np.float32]) -> None:
    """Raises ValueError if these cannot be the logits of an image."""
    if logits.shape != (len(card.classes),) or not np.isfinite(logits).all():
        raise ValueError(f"{card.name} returned {logits}")


def _load(settings: Settings, name: str) -> ServedModel:
    artifact = load_for_engine(settings.engine, settings.model_dir, name)
    on_event_loop = runs_on_event_loop(artifact.card, settings)
    make = partial(create_engine, settings.engine, artifact, settings.engine_threads)
    if settings.engine_threads > 1 or settings.engine == "torch":
        return ServedModel(artifact.card, make, on_event_loop, owns_threads=True)
    engine = make()
    return ServedModel(artifact.card, lambda: engine, on_event_loop, owns_threads=False)


def runs_on_event_loop(card: ModelCard, settings: Settings) -> bool:
    """Whether single predictions run on the event loop: as ``settings.inference`` says; if that is auto, by a rule.

    FashionNet's two convolutions take less time than handing a batch to a thread and back. Ensembles, the other
    architectures and PyTorch would delay other requests.
    """
    if settings.inference != "auto":
        return settings.inference == "event-loop"
    return card.architecture == "fashionnet" and card.members == 1 and settings.engine != "torch"
