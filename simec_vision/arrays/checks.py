"""Checks of the estimator's arguments, which scikit-learn asks for when fitting, not before."""

from typing import Any

from simec_vision.arrays.recipes import recipe
from simec_vision.items import InputError, nearest
from simec_vision.optimisation import OPTIMIZERS

NAMES = {
    "embedding_activation": ("none", "tanh", "relu", "sigmoid"),
    "output_activation": ("none", "sigmoid"),
    "loss": ("mse", "mae", "bce"),
    "optimizer": (None, *OPTIMIZERS),
    "schedule": (None, "cosine", "constant", "plateau"),
}
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16")
COUNTS = ("embedding_dim", "epochs", "batch_size")
STRENGTHS = (
    "gram_penalty", "orthogonality_penalty", "orthogonality_start", "l2_hidden", "l2_embedding", "l2_head", "lr",
)  # fmt: skip


def check_options(options: Any) -> None:
    """Check an estimator's arguments.

    Raises:
        InputError: naming the first one that cannot be.
    """
    recipe(options.recipe)
    for name, known in NAMES.items():
        if getattr(options, name) not in known:
            told = nearest(str(getattr(options, name)), [one for one in known if one])
            raise InputError(f"Expected {name} as one of those known, got {getattr(options, name)!r}: {told}")
    for name in COUNTS:
        value = getattr(options, name)
        if value is not None and (value != int(value) or value < 1):
            raise InputError(f"Expected {name} as a whole number of at least 1, got {value}")
    for name in STRENGTHS:
        value = getattr(options, name)
        if value is not None and not value >= 0:
            raise InputError(f"Expected {name} as a number of at least 0, got {value}")
    if not 0 <= options.validation < 1:
        raise InputError(f"Expected validation as a share of the items from 0 to below 1, got {options.validation}")
    if str(options.precision) not in PRECISIONS:
        raise InputError(
            f"Expected precision as one of {', '.join(PRECISIONS)}, got {options.precision!r}: weights stay in float32"
        )
    if options.head_frozen and options.head_start is None:
        raise InputError("Expected head_start eigen or a matrix for head_frozen, or random to freeze random numbers")
