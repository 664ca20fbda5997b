"""What is read and not looked at yet: its order, what goes past it, and callers that do not wait for it."""

import asyncio
import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import app.server.intake
from app.server.intake import Intake
from app.settings import Settings
from tests.pictures import encode, grey_png, trousers
from tests.servers import serve, wait_until
from tests.test_shedding import answer_of

PICTURE = encode(trousers())
PREDICT = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Connection:
    """Remembers what it looked at, and in which turn of the event loop."""

    def __init__(self, seen: list[tuple[bytes, int]], turns: list[int]) -> None:
        self.unseen, self.seen, self.turns = 0, seen, turns

    def look_at(self, data: bytes, _since: float) -> None:
        """Remember it."""
        self.seen.append((data, len(self.turns)))


def taken(pieces: int) -> tuple[list[tuple[bytes, int]], list[int]]:
    """What two connections look at in which turn, and how much of it waited after each turn."""
    seen, turns, waited = [], [], []

    async def take_all() -> None:
        intake, connections = Intake(), [Connection(seen, turns) for _ in range(2)]
        for number in range(pieces):
            intake.take(connections[number % 2], b"%d" % number)
        for turn in range(pieces + 2):
            waited.append(sum(connection.unseen for connection in connections))
            turns.append(turn)
            await asyncio.sleep(0)

    asyncio.run(take_all())
    return seen, waited


def test_what_fits_in_a_slice_is_looked_at_at_once(monkeypatch):
    monkeypatch.setattr(app.server.intake, "SLICE", 60)
    seen, waited = taken(6)
    assert seen == [(b"%d" % number, 0) for number in range(6)]
    assert set(waited) == {0}


def test_the_rest_waits_for_later_turns_in_its_order(monkeypatch):
    monkeypatch.setattr(app.server.intake, "SLICE", 0)
    seen, waited = taken(6)
    assert [data for data, _ in seen] == [b"%d" % number for number in range(6)]
    assert [turn for _, turn in seen] == [0, 1, 2, 3, 4, 5], "one piece a turn, however short the slice"
    assert waited[:7] == [5, 4, 3, 2, 1, 0, 0]


def test_answers_are_right_where_everything_waits(small_data, monkeypatch):
    monkeypatch.setattr(app.server.intake, "SLICE", 0)
    pictures = [grey_png(seed) for seed in range(40)]
    with serve(Settings(data_dir=small_data.root)) as client, ThreadPoolExecutor(16) as callers:

        def ask(picture: bytes) -> dict[str, float]:
            answer = httpx.post(f"{client.base_url}/predict", files={"file": picture})
            return answer.json()["probabilities"]

        assert list(callers.map(ask, pictures)) == [ask(picture) for picture in pictures]


@pytest.fixture
def held(small_data, monkeypatch):
    """A service that looks at nothing until it is let; and what lets it."""
    with serve(Settings(data_dir=small_data.root)) as client:
        held_back, take = [], Intake.take

        def hold(intake, connection, data):
            connection.unseen += 1
            held_back.append((connection, data))

        def let_go():
            monkeypatch.setattr(Intake, "take", take)
            for connection, data in held_back:
                connection.loop.call_soon_threadsafe(look_at, connection, data)

        monkeypatch.setattr(Intake, "take", hold)
        yield client, held_back, let_go


def look_at(connection, data: bytes) -> None:
    connection.unseen -= 1
    connection.look_at(data, 0)


@contextlib.contextmanager
def connected(client: httpx.Client):
    with contextlib.closing(socket.create_connection((client.base_url.host, client.base_url.port), 20)) as connection:
        yield connection


def test_whether_it_lives_is_told_past_what_waits_but_in_the_order_of_each_connection(held):
    client, held_back, let_go = held
    with connected(client) as busy, connected(client) as probe:
        busy.sendall(PREDICT + PICTURE)
        wait_until(lambda: held_back)
        probe.sendall(LIVE)
        assert b'{"status":"live"}' in answer_of(probe)
        busy.sendall(LIVE)
        wait_until(lambda: len(held_back) == 2)
        let_go()
        assert b'"label":"Trouser"' in answer_of(busy).partition(b'"status"')[0]


def test_a_caller_that_left_meanwhile_is_forgotten(held, caplog):
    client, held_back, let_go = held
    with connected(client) as gone:
        gone.sendall(PREDICT + PICTURE)
        wait_until(lambda: held_back)
    wait_until(lambda: held_back[0][0].parser is None)
    let_go()
    assert client.post("/predict", files={"file": PICTURE}).json()["label"] == "Trouser"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
