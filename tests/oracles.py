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
    """Mean over rows of the mean over known entries of (s_ij − w_i · w_j)²; over all r × r where all are known."""
    products = [[sum(a * b for a, b in zip(mine, theirs, strict=True)) for theirs in weight] for mine in weight]
    return masked_loss(products, gram, squared)


def orthogonality_penalty(weight):
    """Mean over all d × d entries, the diagonal taken as 0, of (column_i · column_j)²."""
    d = len(weight[0])
    products = [0.0 if i == j else sum(row[i] * row[j] for row in weight) ** 2 for i in range(d) for j in range(d)]
    return sum(products) / d**2


def attribute_distance(a, b, extent):
    return 1 - abs(a - b) / extent


def same_class(a, b):
    """Classes are numbered from 0; a negative one is unknown."""
    return math.nan if a < 0 or b < 0 else float(a == b)


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


def centred(rows, block):
    """Kernel rows less their own mean and the column means of the references' block, plus that block's mean."""
    r = len(block)
    columns = [sum(row[j] for row in block) / r for j in range(r)]
    overall = sum(columns) / r
    return [[value - sum(row) / r - columns[j] + overall for j, value in enumerate(row)] for row in rows]


def scaled(rows, block):
    """Kernel rows brought to the interval that makes the references' block span [0, 1]."""
    low, high = min(map(min, block)), max(map(max, block))
    return [[(value - low) / (high - low) for value in row] for row in rows]


def weighted_sum(parts, weights):
    return [
        [sum(w * part[i][j] for w, part in zip(weights, parts, strict=True)) for j in range(len(parts[0][0]))]
        for i in range(len(parts[0]))
    ]


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
