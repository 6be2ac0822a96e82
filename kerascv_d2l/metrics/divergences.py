"""Distances between probability distributions."""

import numpy as np

from kerascv_d2l.errors import InputError

# Name -> (f, f(0), the limit of f(t) / t): a divergence is the sum of q f(p / q). The last two
# say what counts where p or q is 0.
_DIVERGENCES = {
    "kl": (lambda t: t * np.log(t), 0.0, np.inf),
    "reverse_kl": (lambda t: -np.log(t), np.inf, 0.0),
    "js": (
        lambda t: 0.5 * (t * np.log(t) - (t + 1) * np.log((t + 1) / 2)),
        0.5 * np.log(2),
        0.5 * np.log(2),
    ),
    "total_variation": (lambda t: 0.5 * np.abs(t - 1), 0.5, 0.5),
    "hellinger": (lambda t: 0.5 * (np.sqrt(t) - 1) ** 2, 0.5, 0.5),
    "chi_squared": (lambda t: (t - 1) ** 2, 1.0, np.inf),
}


def f_divergence(p, q, name):
    """Compute an f-divergence of discrete distributions.

    Args:
        p: float `(…, n)`, not negative, with sum 1 along the last axis.
        q: float `(…, n)`, likewise.
        name: `"kl"`, of p from q; `"reverse_kl"`; `"js"` (Jensen-Shannon; what an ideal
            discriminator measures: log 2 where p and q share nothing, however near they are);
            `"total_variation"`; `"hellinger"` (squared); `"chi_squared"` (Pearson's).

    Returns:
        float64 `(…)`, nats; infinite where it is.

    Raises:
        InputError: if the name is unknown, or p or q is no distribution.

    Source:
        Nowozin, Cseke, Tomioka: f-GAN (2016), table 1.
    """
    if name not in _DIVERGENCES:
        raise InputError(f"name is {name!r}; wanted one of {', '.join(_DIVERGENCES)}")
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    for letter, values in (("p", p), ("q", q)):
        if (values < 0).any() or not np.allclose(values.sum(-1), 1, atol=1e-5):
            raise InputError(f"{letter} is no distribution: wanted values >= 0 with the sum 1")
    p, q = np.broadcast_arrays(p, q)
    function, at_zero, slope = _DIVERGENCES[name]
    terms = np.zeros(p.shape)
    both, only_p, only_q = (p > 0) & (q > 0), (p > 0) & (q == 0), (p == 0) & (q > 0)
    terms[both] = q[both] * function(p[both] / q[both])
    terms[only_p] = p[only_p] * slope
    terms[only_q] = q[only_q] * at_zero
    return terms.sum(-1)


def kl_divergence(p, q):
    """KL divergence of discrete distributions; `f_divergence`, which has the arguments."""
    return f_divergence(p, q, "kl")


def js_divergence(p, q):
    """Jensen-Shannon divergence; `f_divergence`, which has the arguments."""
    return f_divergence(p, q, "js")


def kl_of_gaussians(mean_p, covariance_p, mean_q, covariance_q):
    """KL divergence of one normal distribution from another, in closed form.

    Args:
        mean_p: float `(d,)`.
        covariance_p: float `(d, d)`, positive definite.
        mean_q: float `(d,)`.
        covariance_q: float `(d, d)`, positive definite.

    Returns:
        float, nats.
    """
    mean_p, covariance_p, mean_q, covariance_q = (
        np.asarray(x, np.float64) for x in (mean_p, covariance_p, mean_q, covariance_q)
    )
    inverse, apart = np.linalg.inv(covariance_q), mean_q - mean_p
    logs = np.linalg.slogdet(covariance_q)[1] - np.linalg.slogdet(covariance_p)[1]
    trace = np.trace(inverse @ covariance_p)
    return float(0.5 * (trace + apart @ inverse @ apart - len(mean_p) + logs))
