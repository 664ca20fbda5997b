"""The same as ``fashionnet predict``."""

import sys

from app.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
