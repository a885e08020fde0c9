"""Run `python scripts/experiment.py few_labels --help` for the options, or another experiment; `list` names them."""

import sys

from simec_vision.cli.main import main

if __name__ == "__main__":
    sys.exit(main("experiment"))
