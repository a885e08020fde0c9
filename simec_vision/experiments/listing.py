"""The experiments, what they need and how long they take."""

EXPERIMENTS = {
    "few_labels": ("any images with classes; the original's: CIFAR-10", "1 minute with --quick, hours in full"),
    "basics": (
        "none with --quick; MNIST in full, and 20 newsgroups where --parts names them",
        "20 seconds with --quick, a quarter of an hour in full",
    ),
    "paper": (
        "none with --quick; MNIST in full",
        "40 seconds with --quick, days in full, three hours with --original_seeds 0",
    ),
    "matrix_factorization": ("none", "half a minute with --quick, three hours in full, one with one seed"),
    "flowerpots": ("none", "20 seconds with --quick, a minute in full"),
    "nonmetric": ("none with --quick; MNIST, tales and news in full", "20 seconds with --quick, 12 minutes in full"),
    "manifold": ("none", "15 seconds with --quick, 4 minutes in full"),
    "link_prediction": (
        "a knowledge graph, such as WN18RR; none with --quick",
        "10 seconds with --quick, half an hour in full, hours more for each of --original_seeds",
    ),
    "recommender": (
        "MovieLens 100k, or tables of ratings and features; none with --quick",
        "20 seconds with --quick, 15 minutes in full",
    ),
    "linear_nonlinear": (
        "none; MNIST and 20 newsgroups, if there",
        "20 seconds with --quick, hours in full, 12 minutes with --original_seeds 0",
    ),
    "class_labels": (
        "none; MNIST and 20 newsgroups, if there",
        "20 seconds with --quick, an hour in full, 20 minutes with --original_seeds 0",
    ),
    "noisy_data": (
        "none; MNIST, if there",
        "20 seconds with --quick, hours in full, 17 minutes with --original_seeds 0",
    ),
    "transfer_tasks": ("any images with classes; the original's: CIFAR-10", "1 minute with --quick, hours in full"),
}
"""Experiment → data needed, and time on 2 CPU cores."""


def list_experiments() -> None:
    """List the experiments with the data that they need and the time that they take."""
    for name, (data, time) in EXPERIMENTS.items():
        print(f"{name:22} data: {data}\n{'':22} time: {time}")
    print("Options of each: python scripts/experiment.py NAME --help")
