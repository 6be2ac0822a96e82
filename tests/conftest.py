import sys

import pytest


@pytest.fixture(autouse=True)
def same_draws_every_time():
    """Seed what a test draws without a seed of its own, if it has Keras at all."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def pyplot():
    """Matplotlib's pyplot without a window, with no figure left open."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")
