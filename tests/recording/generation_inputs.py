"""Numbers that record_generation.py gives PyTorch and the tests give this package."""

import numpy as np

STD, RATE, STEPS = 0.3, 0.5, 3


def vae():
    rng = np.random.default_rng(0)
    shape = (3, 4, 5, 2)
    return {
        "mean": rng.normal(size=(3, 6)),
        "log_variance": rng.normal(size=(3, 6)),
        "logits": rng.normal(0, 3, size=shape),
        "targets": rng.uniform(size=shape),
    }


def spectral(name):
    """Kernel `(3, 3, 2, 4)` or `(5, 3)`, bias, inputs, and the vectors to begin with."""
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 2, 4) if name == "conv" else (5, 3))
    inputs = rng.normal(size=(2, 7, 5, 2) if name == "conv" else (4, 5))
    u, v = rng.normal(size=kernel.shape[-1]), rng.normal(size=kernel[..., 0].size)
    return {
        "kernel": kernel,
        "bias": rng.normal(size=kernel.shape[-1]),
        "inputs": inputs,
        "u": u / np.linalg.norm(u),
        "v": v / np.linalg.norm(v),
    }
