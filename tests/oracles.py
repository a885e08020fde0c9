"""Slow, obvious twins of the package's formulas: loops over plain Python numbers, written from the specification."""

import math


def masked_loss(predicted, target, element):
    """Mean over rows of the mean over known entries; a row without known entries counts as 0."""
    total = 0.0
    for p_row, t_row in zip(predicted, target, strict=True):
        known = [(p, t) for p, t in zip(p_row, t_row, strict=True) if not math.isnan(t)]
        total += sum(element(p, t) for p, t in known) / max(len(known), 1)
    return total / len(predicted)


def squared(p, t):
    return (p - t) ** 2


def absolute(p, t):
    return abs(p - t)


def cross_entropy(p, t):
    probability = 1 / (1 + math.exp(-p))
    return -t * math.log(probability) - (1 - t) * math.log(1 - probability)


def gram_penalty(weight, gram):
    """Mean over all r × r entries of (s_ij − w_i · w_j)²."""
    r = len(weight)
    gaps = [
        (gram[i][j] - sum(a * b for a, b in zip(weight[i], weight[j], strict=True))) ** 2
        for i in range(r)
        for j in range(r)
    ]
    return sum(gaps) / r**2


def orthogonality_penalty(weight):
    """Mean over all d × d entries, the diagonal taken as 0, of (column_i · column_j)²."""
    d = len(weight[0])
    products = [0.0 if i == j else sum(row[i] * row[j] for row in weight) ** 2 for i in range(d) for j in range(d)]
    return sum(products) / d**2


def overlap(a, b, coefficient):
    """Overlap of two sets; NaN where one is empty."""
    if not a or not b:
        return math.nan
    both = len(a & b)
    return {"simpson": both / min(len(a), len(b)), "jaccard": both / len(a | b), "dice": 2 * both / (len(a) + len(b))}[
        coefficient
    ]


def kernel(kind, a, b, gamma):
    """One entry of a kernel."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    if kind == "linear":
        return dot
    if kind == "cosine":
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return math.exp(-gamma * sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def cosine_schedule(step, total, warmup):
    """Linear rise over the first ``warmup · total`` steps, then half a cosine down to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    done = (step - rise) / (total - rise)
    return (1 + math.cos(math.pi * done)) / 2


def plateau_schedule(losses, lr, patience, start):
    """Learning rate of every epoch: a tenth once ``patience`` epochs in a row had no relative improvement of 1e-4."""
    best, bad, rates = math.inf, 0, []
    for epoch, loss in enumerate(losses):
        rates.append(lr)
        if epoch < start:
            continue
        if loss < best * (1 - 1e-4):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            lr, bad = lr / 10, 0
    return rates
