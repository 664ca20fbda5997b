"""A shadow model: it classifies pictures that other models have answered, and metrics tell where it agrees.

It runs in the background thread, whose priority is low, and keeps few pictures: while it is busy, others are dropped.
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor

from app.metrics import SHADOW
from model import Engine, ModelCard, Picture, Prediction
from model.errors import ArtifactMissing

logger = logging.getLogger("fashionnet")

QUEUE = 32
"""Most pictures that wait for the shadow model."""


class Shadow:
    """Compares a model's predictions with those of others.

    Args:
        card: of the shadow model.
        engine: of the shadow model.
        executor: the background thread.
        share: of the pictures that are compared, above 0 and at most 1.
    """

    def __init__(self, card: ModelCard, engine: Engine, executor: Executor, share: float) -> None:
        self.card, self.engine, self.share = card, engine, share
        self._executor = executor
        self._room = threading.BoundedSemaphore(QUEUE)
        self._outcomes: deque[tuple[str, str, str]] = deque()
        self._has_failed = False

    def compare(self, picture: Picture, prediction: Prediction) -> None:
        """Has the model classify the picture later if it is in the sample and there is room."""
        if random.random() >= self.share:  # noqa: S311 - a sample needs no cryptography
            return
        if self._room.acquire(blocking=False):
            self._executor.submit(self._classify, picture, prediction)
        else:
            self._outcomes.append((prediction.model, prediction.label, "dropped"))

    def count(self) -> None:
        """Counts the outcomes since the last call; on the event loop, as a thread might keep the metrics' lock."""
        while self._outcomes:
            model, label, outcome = self._outcomes.popleft()
            SHADOW.labels(model, self.card.name, label, outcome).inc()

    def _classify(self, picture: Picture, prediction: Prediction) -> None:
        try:
            class_id = self.engine.run(picture.image[None]).logits.argmax()
            outcome = "agrees" if class_id == prediction.class_id else "differs"
        except Exception:
            if not self._has_failed:  # once: it may fail for every picture
                logger.exception("The shadow model cannot classify a picture.")
            self._has_failed, outcome = True, "failed"
        finally:
            self._room.release()
        self._outcomes.append((prediction.model, prediction.label, outcome))


def require_shadow(name: str, cards: Iterable[ModelCard]) -> None:
    """Raises ArtifactMissing if there is no model of that name, or no other one that takes the same input."""
    by_name = {card.name: card for card in cards}
    if name not in by_name:
        raise ArtifactMissing(
            f"FASHIONNET_SHADOW_MODEL: the model folder has no {name}; it has {', '.join(by_name)}: name one of them."
        )
    if not any(card.input == by_name[name].input for card in by_name.values() if card.name != name):
        raise ArtifactMissing(
            f"FASHIONNET_SHADOW_MODEL: no other model takes the input of {name}, so there is nothing to compare: "
            "name another model, or none."
        )
