"""The same as ``fashionnet export``."""

import sys

from app.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
