"""Folders and tables of pictures."""
