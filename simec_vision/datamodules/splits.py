"""Which items train, which validate and which test."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simec_vision.items import InputError

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
"""What a folder, a table or a shard may say, and the split that it means."""


def check_shares(**shares: float) -> None:
    """Check that shares leave something for training.

    Raises:
        InputError: naming the share that is wrong.
    """
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise InputError(f"Expected {name} as a share between 0 and 1, got {share}")
    total = sum(shares.values())
    if total >= 1:
        raise InputError(f"Expected {' + '.join(shares)} below 1, so that training keeps some images, got {total:g}")


def ordered_split(pool: NDArray[np.int64], shares: Mapping[str, float], seed: int) -> dict[str, NDArray[np.int64]]:
    """Split items in a seeded order: first ``train``, then the shares, the first of them last.

    With one share of 0.1 for ``validation``, 50,000 items give 45,000 and 5,000 in the order of
    ``RandomState(seed).permutation``.

    Args:
        pool: Index of the items to split, shape ``(item,)``.
        shares: Split name → share of the items; a share above 0 gives at least one item, one of 0 no such split, but
            for ``validation``, which is empty then.
        seed: Seed of the permutation.
    """
    order = pool[np.random.RandomState(seed).permutation(len(pool))]
    splits = {}
    for name, share in shares.items():
        count = max(1, round(share * len(pool))) if share else 0
        order, splits[name] = np.split(order, [max(0, len(order) - count)])
    return {"train": order, **{name: index for name, index in splits.items() if len(index) or name == "validation"}}


def said_or_drawn(
    where: str, said: Sequence[str] | NDArray[np.str_], count: int, shares: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Take the splits that were said, and draw what nothing was said of.

    Args:
        where: Where the items come from, for the message.
        said: The split of each item, or nothing.
        count: How many items there are.
        shares: Split name → share of the items to draw; of splits that were said, only ``validation`` is.
        seed: Seed of the draw.

    Raises:
        InputError: if nothing is left to train on.
    """
    named = np.array(said) if len(said) else np.full(count, "train")
    splits = {name: np.flatnonzero(named == name) for name in dict.fromkeys(named.tolist()) if name}
    drawn = {name: share for name, share in shares.items() if not len(said) or name == "validation"}
    if "validation" not in splits and "train" in splits:
        splits |= ordered_split(splits["train"], drawn, seed)
    if not len(splits.get("train", ())):
        raise InputError(f"Expected training images in {where}, got none of {count}: check the splits and shares")
    return splits


def grouped_split(
    groups: NDArray[np.int64], eligible: NDArray[np.bool_], shares: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Split items so that no group is divided; only groups all of whose items are eligible are held out.

    Args:
        groups: The group of each item, shape ``(item,)``, numbered from 0.
        eligible: Whether an item may be held out, shape ``(item,)``.
        shares: Split name → share of all items; a split takes groups as long as they fit into it.
        seed: Seed of the order in which groups are held out.

    Raises:
        InputError: if too few items are eligible.
    """
    members = np.bincount(groups)
    whole = np.flatnonzero(np.bincount(groups, weights=eligible) == members)
    order = np.random.RandomState(seed).permutation(whole)
    filled = np.cumsum(members[order])
    wanted = np.round(np.cumsum(list(shares.values())) * len(groups))
    if wanted[-1] > (filled[-1] if len(filled) else 0):
        raise InputError(
            f"Expected at least {wanted[-1]:.0f} items that may be held out ({' + '.join(shares)} of {len(groups)}), "
            f"got {members[whole].sum()}: make these shares smaller"
        )
    parts = np.split(order, np.searchsorted(filled, wanted, "right"))[:-1]
    return _items_of_groups(groups, dict(zip(shares, parts, strict=True)))


def _items_of_groups(
    groups: NDArray[np.int64], held_out: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    splits = {name: np.flatnonzero(np.isin(groups, chosen)) for name, chosen in held_out.items()}
    rest = ~np.isin(groups, np.concatenate(list(held_out.values())))
    return {"train": np.flatnonzero(rest), **{k: v for k, v in splits.items() if len(v) or k == "validation"}}
