"""The same as ``fashionnet download``."""

import sys

from app.commands.download import main

if __name__ == "__main__":
    sys.exit(main())
