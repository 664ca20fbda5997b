"""Logging as text or JSON, with the request's identifier."""

import logging
import logging.config
from contextvars import ContextVar
from typing import Any

from app.settings import Settings, environment_warnings
from model.files import one_line

logger = logging.getLogger("fashionnet")
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The identifier of the current request; None outside of a request."""


class RequestIdFilter(logging.Filter):
    """Adds the request's identifier to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keeps every record."""
        record.request_id = request_id.get()
        return True


class TextFormatter(logging.Formatter):
    """``LEVEL    message [request identifier]``; control characters, which callers may send, are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as a line, followed by its traceback if it has one."""
        identifier = getattr(record, "request_id", None)
        record.suffix = f" [{identifier}]" if identifier else ""
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of logging
        """Returns the record as one line, without its traceback."""
        return one_line(super().formatMessage(record).rstrip())


def log_config(settings: Settings) -> dict[str, Any]:
    """Returns the configuration of the service's and the servers' loggers for ``logging.config.dictConfig``."""
    logger = {"handlers": ["stderr"], "level": settings.log_level.upper()}
    server, library = logger | {"propagate": False}, logger | {"level": "WARNING", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": RequestIdFilter}},
        "formatters": {
            "text": {"()": TextFormatter, "fmt": "%(levelname)-8s %(message)s%(suffix)s"},
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
                "datefmt": "%Y-%m-%dT%H:%M:%S%z",
            },
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "level": settings.log_level.upper(),
                "formatter": settings.log_format,
                "filters": ["request"],
            }
        },
        "loggers": {
            "fashionnet": logger,
            "asyncio": library,
            "opentelemetry": library,
            "py.warnings": library,
            "gunicorn.error": server,
            "uvicorn": server,
            "uvicorn.access": {"handlers": [], "propagate": False},  # app/middleware.py has its own
        },
    }


def configure(settings: Settings) -> None:
    """Configures logging by the settings; Python's warnings are logged too."""
    logging.config.dictConfig(log_config(settings))
    logging.captureWarnings(True)


def log_ignored_variables() -> None:
    """Logs a warning for each ``FASHIONNET_`` variable that is ignored or has an old name."""
    for sentence in environment_warnings():
        logger.warning(sentence)
