"""Training on arrays in memory: what :class:`simec_vision.SimilarityEncoder` is made of."""
