"""Bytes in, predictions out; knows no HTTP."""
