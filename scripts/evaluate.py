"""Run `python scripts/evaluate.py explanations --help` for the options, or with trap, embedding or line."""

import sys

from simec_vision.cli.main import main

if __name__ == "__main__":
    sys.exit(main("evaluate"))
