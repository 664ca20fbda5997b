"""The same as ``fashionnet evaluate``."""

import sys

from app.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
