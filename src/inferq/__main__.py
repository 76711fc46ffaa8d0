"""`python -m inferq` is the command line."""

from __future__ import annotations

import sys

from inferq.cli import main

if __name__ == "__main__":
    sys.exit(main())
