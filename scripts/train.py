"""The same as ``fashionnet train``."""

import sys

from app.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
