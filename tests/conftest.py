import gc
import sys

import pytest

# Files that take longest, for the two workers to start with: who takes one last, ends alone.
SLOWEST = (
    "layers", "batches", "training_scripts", "export", "faster_rcnn", "fcn",
    "train_generator", "run", "backbones", "devices", "dense", "detr", "ssd", "optimizers",
    "generators", "explain", "style_objective", "instance_masks", "replicas", "detector",
    "style_transfer", "multi_worker", "roi", "book", "resnet", "evaluate", "predict",
    "style_run", "matching", "augment_demo", "weights", "segmenter", "classifier",
    "fast_style", "explain_script",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Put the files that take longest first."""
    places = {f"test_{name}.py": place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish():
    """Spare the garbage collector what stays to the end: TensorFlow lets it run for each graph."""
    gc.collect()
    gc.freeze()


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
