"""The HTTP service."""

VERSION = "0.1.0"
