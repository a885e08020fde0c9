"""scikit-learn's own checks of the estimator."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from simec_vision import SimilarityEncoder


@parametrize_with_checks([SimilarityEncoder(2, epochs=3)])
def test_scikit_learn(estimator, check):
    check(estimator)
