"""Download Fashion-MNIST (30 MB) with a progress bar; what is there and right already is left alone.

python scripts/download.py [--data-dir FOLDER] [--url MIRROR]
"""

import argparse
import sys
from pathlib import Path

from app.settings import SettingsError, read_settings
from model import FashionMnist, FashionNetError


def main() -> int:
    """Download what is missing; returns the exit status."""
    try:
        settings = read_settings()
        parser = argparse.ArgumentParser(description="Download Fashion-MNIST; what is there already is left alone.")
        parser.add_argument("--data-dir", type=Path, default=settings.data_dir, help="default: %(default)s")
        parser.add_argument("--url", default=settings.data_url, help="mirror that holds the four .gz files")
        parser.add_argument("--split", choices=["train", "test"], help="only this part (default: both)")
        arguments = parser.parse_args()
        data_set = FashionMnist(arguments.data_dir)
        data_set.download(arguments.url, splits=[arguments.split] if arguments.split else ["train", "test"])
    except (FashionNetError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Fashion-MNIST{f' ({arguments.split})' if arguments.split else ''} is complete in {data_set.folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
