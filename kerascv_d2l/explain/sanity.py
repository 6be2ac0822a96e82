"""Does a map show what the network has learned? Randomise its weights, and the map must change."""

import contextlib

import numpy as np
from scipy.stats import spearmanr

from kerascv_d2l.explain.layers import inner_layers
from kerascv_d2l.explain.subject import look

STAGES = (("output layer", 0.0), ("upper half", 0.5), ("all layers", 1.0))


def sanity_check(method, model, image, target=None, seed=0, **options):
    """Compare a map with those of the same network with shuffled weights.

    From the output down: the last layer with weights, the upper half of the layers, all of them.
    The weights are the model's own again at the end.

    Args:
        method: function as `saliency`: of model, image and target to a map `(h, w)`.
        model: as for `saliency`, but no export.
        image: as for `saliency`.
        target: as for `saliency`; what it stands for is chosen before anything is shuffled.
        seed: int, of the shuffling.
        **options: of the method.

    Returns:
        list of dicts, the first for the model as it is: `stage` str; `map` float32 `(h, w)`; and
        `correlation` float, the rank correlation of absolute values with the first map, 0 for a
        map of one value only.

    Raises:
        InputError: as for the method.

    Source:
        Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.1.
    """
    subject, _, target = look(model, image, target)
    subject.check_layers("sanity_check")
    first = method(subject, image, target, **options)
    rows = [{"stage": "trained", "map": first, "correlation": 1.0}]
    for stage, share in STAGES:
        with shuffled(subject.model, share, seed):
            heat = method(subject, image, target, **options)
        rows.append({"stage": stage, "map": heat, "correlation": _correlation(first, heat)})
    return rows


@contextlib.contextmanager
def shuffled(model, share, seed=0):
    """Shuffle the values inside each weight of the upper layers, within the block.

    Args:
        model: `keras.Model`.
        share: float from 0 to 1, of the layers with weights, counted from the output; at least
            one layer.
        seed: int.
    """
    rng = np.random.default_rng(seed)
    children = inner_layers(model).values()
    layers = [layer for layer in children if layer._trainable_variables]
    chosen = layers[-max(1, round(share * len(layers))) :]
    before = [(v, v.numpy()) for layer in chosen for v in layer._trainable_variables]
    try:
        for variable, value in before:
            variable.assign(rng.permutation(value.ravel()).reshape(value.shape))
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _correlation(first, second):
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(np.abs(first).ravel(), np.abs(second).ravel()).statistic)
