"""Run `python scripts/benchmark.py pretraining --help` for the options, or one of the other comparisons.

They are: references, images, processes, explanation, loading, estimator.
"""

import sys

from simec_vision.cli.main import main

if __name__ == "__main__":
    sys.exit(main("benchmark"))
