"""``python -m app``: the settings, then uvicorn with its workers."""

import sys

import uvicorn

from app.predictor import load_artifacts
from app.settings import SettingsError, read_settings
from model import ArtifactError


def main() -> None:
    """Check what would stop every worker, once and in one sentence; then serve."""
    try:
        settings = read_settings()
        load_artifacts(settings)
    except (SettingsError, ArtifactError) as error:
        sys.exit(f"fashionnet: {error}")
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_level=settings.log_level,
        access_log=settings.access_log,
        server_header=False,
        timeout_graceful_shutdown=30,
    )


if __name__ == "__main__":
    main()
