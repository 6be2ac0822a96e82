"""Two devices compute what one computes: segmentation, fast style transfer, generation."""

import json
from pathlib import Path

import children
import pytest

CHILD = Path(__file__).parent / "replicas_child.py"
SAME = 1e-5


@pytest.fixture(scope="module")
def found():
    done = children.run(CHILD)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["replicas"] == 2
    return result


def test_segmentation_loss_with_ignored_pixels_in_half_of_the_images(found):
    part = found["segmentation"]
    assert part["history"] < SAME and part["weights"] < SAME
    assert part["loss"][1] < part["loss"][0]


def test_last_batch_of_evaluation_counts_by_its_images(found):
    assert found["segmentation"]["evaluate"] < SAME


def test_validation_in_fit_is_the_evaluation_on_both(found):
    assert found["segmentation"]["history is evaluation"]


def test_fast_style_step(found):
    part = found["fast_style"]
    assert part["history"] < SAME and part["weights"] < SAME
    assert part["moved"] > 100 * SAME
    # Each figure once: "loss" and its three parts.
    assert part["names"] == ["content_loss", "loss", "style_loss", "tv_loss"]
    assert part["metrics"] == 4


@pytest.mark.parametrize("kind", ["VAE", "GAN"])
def test_generation(found, kind):
    """Noise is not drawn twice, and both optimizers add up what the devices find."""
    part = found[kind]
    assert part["history"] < SAME and part["weights"] < 10 * SAME
    assert part["moved"] > 1000 * SAME
