"""Divergences, Fréchet and kernel distance, inception score: SciPy, closed forms, slow versions."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import kerascv_d2l as d2l

pytestmark = pytest.mark.quick


def test_divergences_of_discrete_distributions():
    p, q = np.array([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9]]), np.array([0.2, 0.2, 0.6])
    middle = (p + q) / 2
    entropy = scipy.stats.entropy
    np.testing.assert_allclose(d2l.kl_divergence(p, q), entropy(p, q, axis=1))
    js = 0.5 * entropy(p, middle, axis=1) + 0.5 * entropy(q[None], middle, axis=1)
    np.testing.assert_allclose(d2l.js_divergence(p, q), js)
    np.testing.assert_allclose(d2l.f_divergence(p[0], q, "reverse_kl"), entropy(q, p[0]))
    half = np.abs(p - q).sum(1) / 2
    np.testing.assert_allclose(d2l.f_divergence(p, q, "total_variation"), half)
    hellinger = 1 - np.sqrt(p * q).sum(1)
    np.testing.assert_allclose(d2l.f_divergence(p, q, "hellinger"), hellinger)
    chi = ((p - q) ** 2 / q).sum(1)
    np.testing.assert_allclose(d2l.f_divergence(p, q, "chi_squared"), chi)


def test_disjoint_distributions_are_log_2_apart_however_near():
    for gap in (1, 5, 90):
        p, q = np.eye(100)[3], np.eye(100)[3 + gap]
        assert d2l.js_divergence(p, q) == pytest.approx(np.log(2))
        assert d2l.kl_divergence(p, q) == np.inf
        assert d2l.f_divergence(p, q, "total_variation") == 1
    with pytest.raises(d2l.InputError, match="p is no distribution"):
        d2l.kl_divergence([0.5, 0.6], [0.5, 0.5])
    with pytest.raises(d2l.InputError, match="name is 'emd'"):
        d2l.f_divergence([1.0], [1.0], "emd")


def test_kl_of_gaussians_by_monte_carlo():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 3))
    p = scipy.stats.multivariate_normal(rng.normal(size=3), a @ a.T + np.eye(3))
    q = scipy.stats.multivariate_normal(rng.normal(size=3), b @ b.T + np.eye(3))
    x = p.rvs(100_000, rng)
    ratios = p.logpdf(x) - q.logpdf(x)
    found = d2l.kl_of_gaussians(p.mean, p.cov, q.mean, q.cov)
    assert found == pytest.approx(ratios.mean(), abs=4 * ratios.std() / np.sqrt(len(x)))


def by_sqrtm(a, b):
    """The usual formula."""
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(one @ two))
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(one + two - 2 * root)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 12), (60, 300, 50), (51, 51, 50)])
def test_frechet_distance_is_scipy_s(n, m, d):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(d, d)) * np.logspace(0, -2, d)
    a, b = rng.normal(size=(n, d)) @ mix, 0.3 + 0.7 * rng.normal(size=(m, d)) @ mix
    found = d2l.frechet_distance(a, b)
    assert isinstance(found, float)
    assert found == pytest.approx(by_sqrtm(a, b), rel=1e-6)
    assert d2l.frechet_distance(a.astype(np.float32), b) == pytest.approx(found, rel=1e-5)
    assert d2l.frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_fewer_images_than_features():
    """The features of 20 images span 19 directions: in these, all is as with few features."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 100)), rng.normal(1, 2, size=(12, 100))
    basis = np.linalg.svd(np.concatenate([a, b]), full_matrices=False)[2]  # (32, 100)
    eigenvalues = np.linalg.eigvals(np.cov(a @ basis.T, rowvar=False)
                                    @ np.cov(b @ basis.T, rowvar=False))  # fmt: skip
    traces = np.var(a, 0, ddof=1).sum() + np.var(b, 0, ddof=1).sum()
    apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
    wanted = apart + traces - 2 * np.sqrt(np.maximum(eigenvalues.real, 0)).sum()
    assert d2l.frechet_distance(a, b) == pytest.approx(wanted, rel=1e-6)


def test_frechet_distance_of_gaussians_in_closed_form():
    mean, other = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 3.5])
    variances, others = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 2.0])
    wanted = np.sum((mean - other) ** 2) + np.sum((np.sqrt(variances) - np.sqrt(others)) ** 2)
    found = d2l.frechet_distance_of_gaussians(mean, np.diag(variances), other, np.diag(others))
    assert found == pytest.approx(wanted)
    rng = np.random.default_rng(0)
    a = mean + np.sqrt(variances) * rng.normal(size=(200_000, 3))
    b = other + np.sqrt(others) * rng.normal(size=(200_000, 3))
    assert d2l.frechet_distance(a, b) == pytest.approx(wanted, rel=0.02)


def test_kernel_distance_by_loops():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 4)), rng.normal(0.5, size=(5, 4))

    def kernel(x, y):
        return (x @ y / 4 + 1) ** 3

    within = [
        np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])
        for x in (a, b)
    ]
    between = np.mean([kernel(x, y) for x in a for y in b])
    assert d2l.kernel_distance(a, b) == pytest.approx(sum(within) - 2 * between)
    halves = np.split(rng.normal(size=(2000, 4)), 2)
    assert abs(d2l.kernel_distance(*halves)) < 0.05


def test_inception_score_of_known_predictions():
    assert d2l.inception_score(np.full((50, 4), 0.25)) == (pytest.approx(1), pytest.approx(0))
    assert d2l.inception_score(np.eye(4)[np.arange(400) % 4])[0] == pytest.approx(4)
    assert d2l.inception_score(np.eye(4)[np.zeros(40, int)])[0] == pytest.approx(1)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    scores = [np.exp(np.mean([scipy.stats.entropy(row, part.mean(0)) for row in part]))
              for part in np.split(p, 5)]  # fmt: skip
    found = d2l.inception_score(p, 5)
    assert found == (pytest.approx(np.mean(scores)), pytest.approx(np.std(scores)))


@pytest.mark.parametrize("splits", [0, 6, 10])
def test_an_inception_score_needs_two_images_in_each_part(splits):
    with pytest.raises(d2l.InputError, match=f"splits is {splits} for 10 image"):
        d2l.inception_score(np.eye(10), splits)


def test_few_images_are_one_part():
    """Ten parts of one image would have the score 1, whatever they show."""
    draw = np.random.default_rng(0)
    features, probabilities = draw.normal(size=(100, 3)), draw.dirichlet(np.ones(4), 100)

    class Known(d2l.FeatureScores):
        def __init__(self):
            self.name, self._real, self._has_classes = "x", features, True

        def features(self, images):
            return features[: len(images)], probabilities[: len(images)]

    few, many = Known()(range(12)), Known()(range(100))
    assert few["is_x"] == d2l.inception_score(probabilities[:12], 1)[0] > 1
    assert "is_std_x" not in few
    assert (many["is_x"], many["is_std_x"]) == d2l.inception_score(probabilities, 10)


def test_bad_input_is_named():
    a = np.zeros((3, 2))
    for features in (a[:1], np.zeros((3, 4)), np.zeros(3)):
        with pytest.raises(d2l.InputError, match="features of shapes"):
            d2l.frechet_distance(a, features)
    with pytest.raises(d2l.InputError, match="NaN or infinite"):
        d2l.frechet_distance(a, a + np.nan)
    with pytest.raises(d2l.InputError, match=r"splits is 10 for 3 image"):
        d2l.inception_score(np.full((3, 2), 0.5))
    with pytest.raises(d2l.InputError, match="rows of sum 1"):
        d2l.inception_score(np.ones((30, 2)))
