"""Make an API key, and its line for the file that FASHIONNET_API_KEYS_FILE names; neither is stored.

fashionnet key NAME
"""

import argparse
from collections.abc import Sequence

from app.command_line import command_parser, run
from app.keys import NAME, create_key


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and prints; returns the exit status."""
    return run(lambda: print_key(parse_arguments(argv).name))


def print_key(name: str) -> int:
    """Prints a new key and its line; returns the exit status."""
    key, line = create_key(name)
    print(f"key:  {key}\nline: {line}")
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line."""
    parser = command_parser("key", __doc__)
    parser.add_argument("name", help="who gets the key; letters, digits, -, _ and . (shown in the metrics)")
    arguments = parser.parse_args(argv)
    if not NAME.fullmatch(arguments.name):
        parser.error("a name has 1 to 64 letters, digits, hyphens, underscores and dots")
    return arguments
