"""Download Fashion-MNIST (30 MB); files that are there and right are kept.

fashionnet download [--data-dir FOLDER] [--data-url MIRROR] [--split test]
"""

import argparse
from collections.abc import Sequence
from functools import partial

from app.command_line import add_settings, command_parser, run, settings_of
from model import FashionMnist


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and downloads; returns the exit status."""
    return run(partial(download, parse_arguments(argv)))


def download(arguments: argparse.Namespace) -> int:
    """Downloads what is missing; returns the exit status."""
    settings = settings_of(arguments)
    data_set = FashionMnist(settings.data_dir)
    data_set.download(settings.data_url, splits=[arguments.split] if arguments.split else ["train", "test"])
    print(f"Fashion-MNIST{f' ({arguments.split})' if arguments.split else ''} is complete in {data_set.folder}.")
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line."""
    parser = command_parser("download", __doc__)
    add_settings(parser, "data_dir", "data_url")
    parser.add_argument("--url", dest="data_url", help="the same as --data-url")
    parser.add_argument("--split", choices=["train", "test"], help="only this part (default: both)")
    return parser.parse_args(argv)
