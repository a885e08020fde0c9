"""The commands behind ``scripts/``: typed functions whose arguments are the options."""
