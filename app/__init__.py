"""The HTTP service."""

VERSION = "0.2.0"
