import io
import re
import time

from model import progress
from model.progress import progress_bar
from tests.in_process import call
from tests.pictures import encode, trousers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(seconds: float = 0) -> None:
    with progress_bar("fashionnet", 20_000, "images") as bar:
        for _ in range(4):
            bar.set_postfix_str("loss 0.5")
            time.sleep(seconds)
            bar.update(5000)
            bar.refresh()


def test_a_log_file_gets_a_line_at_first_and_another_from_time_to_time(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.2)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    work(0.15)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 3, lines
    assert re.fullmatch(r"fashionnet: 10,000 of 20,000 images, 00:00 left, loss 0\.5", lines[0]), lines


def test_quick_work_writes_nothing_into_a_log_file(capsys):
    work()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_that_vanishes(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    work()
    assert "fashionnet: 100%|" in stream.getvalue()
    assert stream.getvalue().endswith("\r")


def test_a_table_of_many_pictures_shows_progress_in_a_log_file(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encode(trousers()))
    done = call("predict", tmp_path, "--out", tmp_path / "found.csv")
    assert re.fullmatch(r"classified: \d of 3 pictures, .* left\n", done.stderr), done.stderr
