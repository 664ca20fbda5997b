"""``python -m app``: the settings, then uvicorn with its workers.

Nearly all of a start is imports, so what makes them quicker comes before them.
"""

import gc
import importlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings

LOCK_SECONDS = 1e-5
"""How long a thread keeps the interpreter's lock from another that waits for it. Python's 5 ms are as long as three
batches of the engine, which would wait for it between two of them while pictures are decoded."""


def main() -> None:
    """Check what would stop every worker, once and in one sentence; then serve."""
    gc.disable()  # nearly all that is made now is kept
    from app.settings import SettingsError, read_settings, share_metrics

    try:
        settings = read_settings()
    except SettingsError as error:
        sys.exit(f"fashionnet: {error}")
    if settings.workers == 1:
        serve(settings)
        return
    with metrics_folder() as folder:
        share_metrics(folder)  # before anything imports prometheus_client
        serve(settings)


def import_quickly() -> None:
    """Import FastAPI without what a start can do without.

    pydantic.v1 is blocked because FastAPI imports it only to tell that it takes none of its models. FastAPI's models of
    an OpenAPI document are built when somebody first asks for it.
    """
    sys.modules["pydantic.v1"] = None  # type: ignore[assignment]
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True  # inherited by what is defined meanwhile
    importlib.import_module("fastapi")
    del BaseModel.model_config["defer_build"]


def metrics_folder() -> "tempfile.TemporaryDirectory[str]":
    """Where the workers share their metrics; ends the process with one sentence where nothing can be written."""
    try:
        return tempfile.TemporaryDirectory(prefix="fashionnet-metrics-")
    except OSError as error:
        sys.exit(
            f"fashionnet: {error}: several workers share their metrics there; mount one, or set FASHIONNET_WORKERS=1"
        )


def serve(settings: "Settings") -> None:
    """Run the server until it is told to stop."""
    from app.served import require_served

    sys.setswitchinterval(LOCK_SECONDS)
    with ThreadPoolExecutor(1) as beside:
        # ONNX Runtime makes its sessions without the interpreter's lock, which the imports keep.
        served = beside.submit(require_served, settings)
        import_quickly()
        import uvicorn

        from app.logs import log_config
        from app.main import handed_down
        from app.workers import fork_workers, sharing
    handed_down[settings] = served.result()
    fork_workers()
    gc.enable()
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        **sharing(settings.workers),
        ws="none",  # there are none, and their ends would not be counted
        log_config=log_config(settings),
        access_log=False,  # the service has its own
        server_header=False,
        proxy_headers=False,  # nothing here depends on the client's address
        timeout_graceful_shutdown=30,
    )


if __name__ == "__main__":
    main()
