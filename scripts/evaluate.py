"""Run `python scripts/evaluate.py explanations --help` or `python scripts/evaluate.py trap --help` for the options."""

import sys

from simec_vision.cli.main import main

if __name__ == "__main__":
    sys.exit(main("evaluate"))
