import gc
import sys

import children
import pytest

# Files that take longest, for the two workers to start with: who takes one last, ends alone.
SLOWEST = (
    "run", "layers", "training_scripts", "notebooks", "export", "ssd", "faster_rcnn", "batches",
    "multi_worker", "detector", "optimizers", "replicas", "style_objective", "backbones",
    "style_transfer", "book", "fcn", "roi", "train_generator", "growth", "dense", "devices",
    "fast_style", "keeping", "classifier", "localizer", "style_run", "generators", "matching",
    "resnet", "instance_masks", "segmenter", "style_fast", "explain", "augment_demo", "geometry",
    "resize", "localization", "style_book", "package", "windows", "evaluate", "yolo1",
    "inspect_data",
)  # fmt: skip


def pytest_collection_modifyitems(config, items):
    """Put the files that take longest first; what is long is not quick, whatever its file is."""
    places = {f"test_{name}.py": place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    if config.option.markexpr == "quick":
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_collection_finish():
    """Spend less on what makes nothing right or wrong here.

    The garbage collector need not look at what stays to the end, nor after every few hundred
    objects of a graph.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 5)
    children.optimize_graphs(False)


@pytest.fixture
def optimized_graphs():
    """Run graphs as they run for users: where programs are compared with each other."""
    children.optimize_graphs(True)
    yield
    children.optimize_graphs(False)


@pytest.fixture(autouse=True)
def same_draws_every_time():
    """Seed what a test draws without a seed of its own, if it has Keras at all."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def iterators_end_young():
    """Let go of what an error in `fit` leaves behind in cycles, Keras' iterators above all.

    One that is deleted may wait for the next look of TensorFlow's tuner, as long as it has lived.
    """
    yield
    gc.collect(1)


@pytest.fixture
def no_curves(monkeypatch):
    """Let runs leave an empty file for their curves, which take longer than toys to train."""
    monkeypatch.setattr("kerascv_d2l.training.run.draw_history", children.draw_nothing)


@pytest.fixture
def pyplot():
    """Matplotlib's pyplot without a window, with no figure left open."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")
