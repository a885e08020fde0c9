"""The experiments behind ``scripts/experiment.py``: the original's, repeated and extended, one command each."""
