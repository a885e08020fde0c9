"""Run `python scripts/finetune.py --help` for the options."""

import sys

from simec_vision.cli.main import main

if __name__ == "__main__":
    sys.exit(main("finetune"))
