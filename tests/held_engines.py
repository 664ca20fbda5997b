"""Engines that a test can hold up."""

import threading

import pytest

from model import create_engine


class HeldEngine:
    """A real engine whose calls wait for ``gate``, once ``hold`` is set."""

    def __init__(self, engine):
        self.engine = engine
        self.name = engine.name
        self.hold, self.begun, self.gate = threading.Event(), threading.Event(), threading.Event()
        self.images = []

    def run(self, images):
        if self.hold.is_set():
            self.images.append(images)
            self.begun.set()
            assert self.gate.wait(20)
        return self.engine.run(images)

    def class_maps(self, images):
        return self.engine.class_maps(images)


def hold_engines(monkeypatch: pytest.MonkeyPatch) -> list[HeldEngine]:
    """Makes every engine that the service creates from now on a held one; returns them."""
    engines: list[HeldEngine] = []

    def create(*arguments):
        engines.append(HeldEngine(create_engine(*arguments)))
        return engines[-1]

    monkeypatch.setattr("app.inference.models.create_engine", create)
    return engines
