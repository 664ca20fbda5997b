"""Scripts called in this process: the same parsing, output and exit status, without a new interpreter."""

import contextlib
import importlib
import io
from typing import NamedTuple


class Done(NamedTuple):
    """What a script left: as of ``subprocess.CompletedProcess``."""

    returncode: int
    stdout: str
    stderr: str


def call(script: str, *arguments: object, encoding: str = "utf-8") -> Done:
    """Calls ``main`` of ``scripts/<script>.py``, with streams of that encoding."""
    main = importlib.import_module(f"scripts.{script}").main
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
    printed, told = (stream.buffer.getvalue().decode(encoding) for stream in (out, err))
    return Done(status or 0, printed, told)
