"""Download Fashion-MNIST (30 MB): the same as ``python -m app download``.

python scripts/download.py [--data-dir FOLDER] [--data-url MIRROR] [--split test]
"""

import sys

from app.__main__ import main

if __name__ == "__main__":
    main(["download", *sys.argv[1:]])
