"""Offline classification: folders, tables, and a cluster."""
