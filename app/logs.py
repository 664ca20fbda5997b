"""Logging as text or JSON, with the request's identifier."""

import logging
import logging.config
import sys
import threading
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from app.settings import Settings
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
    """Configures logging by the settings: that of the service, of the servers, and of every library.

    Python's warnings are logged too, and as JSON so is an exception that ends the process or a thread.
    """
    logging.config.dictConfig(log_config(settings))
    logging.captureWarnings(True)
    logging.lastResort = logger.handlers[0]  # for the warnings of loggers that nobody has configured
    if settings.log_format == "json":
        sys.excepthook = _log_uncaught
        threading.excepthook = lambda failed: _log_uncaught(
            failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback
        )


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logger.critical("unexpected error", exc_info=(kind, error, traceback))
