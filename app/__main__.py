"""``python -m app``: the settings, then uvicorn with its workers."""

import sys
import tempfile

import uvicorn

from app.logs import log_config
from app.predictor import load_artifacts
from app.settings import SettingsError, read_settings, share_metrics
from model import ArtifactError


def main() -> None:
    """Check what would stop every worker, once and in one sentence; then serve."""
    try:
        settings = read_settings()
        load_artifacts(settings)
    except (SettingsError, ArtifactError) as error:
        sys.exit(f"fashionnet: {error}")
    with tempfile.TemporaryDirectory(prefix="fashionnet-metrics-") as folder:
        if settings.workers > 1:
            share_metrics(folder)
        uvicorn.run(
            "app.main:create_app",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=log_config(settings),
            access_log=False,  # the service has its own
            server_header=False,
            proxy_headers=False,  # nothing here depends on the client's address
            timeout_graceful_shutdown=30,
        )


if __name__ == "__main__":
    main()
