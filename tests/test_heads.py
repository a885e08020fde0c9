import pytest
import torch

from simec_vision.heads import SimilarityHead, head_weight


def test_predicted_similarity_is_embedding_times_weight():
    head = SimilarityHead(4, 6)
    embedding = torch.randn(3, 4)
    assert torch.allclose(head(embedding), embedding @ head.weight.T, atol=1e-6)
    assert [name for name, _ in head.named_parameters()] == ["weight"]


def test_given_weight_is_copied_and_can_be_frozen():
    weight = torch.randn(6, 4)
    head = SimilarityHead(4, 6, weight=weight, frozen=True)
    weight.zero_()
    assert head.weight.abs().sum() > 0
    assert not head.weight.requires_grad


def test_transposed_weight_is_refused():
    with pytest.raises(ValueError, match=r"\(reference, embedding\) = \(6, 4\), got \(4, 6\)"):
        SimilarityHead(4, 6, weight=torch.zeros(4, 6))


def test_eigendecomposition_recovers_a_low_rank_similarity():
    factor = torch.randn(20, 3, dtype=torch.float64)
    weight = head_weight(factor @ factor.T, 5)
    assert weight.shape == (20, 5)
    assert torch.allclose(weight @ weight.T, factor @ factor.T, atol=1e-10)
    assert torch.allclose(weight[:, 3:], torch.zeros(20, 2, dtype=torch.float64), atol=1e-6)


def test_indefinite_similarity_keeps_positive_eigenvalues_only():
    vectors = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    eigenvalues = torch.tensor([5.0, 3, 1, 0.5, -0.5, -1, -4, -6], dtype=torch.float64)
    weight = head_weight(vectors @ torch.diag(eigenvalues) @ vectors.T, 6)
    best = vectors @ torch.diag(eigenvalues.clamp(min=0)) @ vectors.T
    assert torch.allclose(weight @ weight.T, best, atol=1e-10)


def test_truncation_is_the_best_of_its_rank():
    factor = torch.randn(12, 12, dtype=torch.float64)
    gram = factor @ factor.T
    weight = head_weight(gram, 4)
    left_out = torch.linalg.eigvalsh(gram)[:-4]
    assert torch.allclose(((gram - weight @ weight.T) ** 2).sum(), (left_out**2).sum())


def test_embedding_longer_than_references_is_padded():
    assert head_weight(torch.eye(3), 5).shape == (3, 5)


def test_a_gram_of_integers_has_a_weight_of_fractions():
    gram = torch.tensor([[2, 1], [1, 2]])
    assert torch.allclose(head_weight(gram, 2), head_weight(gram.float(), 2))


def test_unknown_similarities_are_refused():
    gram = torch.eye(3)
    gram[0, 1] = torch.nan
    with pytest.raises(ValueError, match="without NaN"):
        head_weight(gram, 2)
    with pytest.raises(ValueError, match=r"got \(3, 2\)"):
        head_weight(torch.zeros(3, 2), 2)
