"""What training changes, and a checkpoint must therefore hold: variables and callbacks' states."""

import collections
import contextlib

import keras
from keras.src.random.seed_generator import global_seed_generator

from kerascv_d2l.training.optimizers import find_optimizers

# What Keras' own callbacks count from epoch to epoch. Others take part by having `get_state()`,
# which returns what JSON or NumPy can hold, and `set_state(state)`.
_CALLBACK_STATE = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best", "epochs_since_last_save"),
}


def flat(trackables):
    """Yield the items of lists of any depth, one by one."""
    for item in trackables:
        if isinstance(item, (list, tuple)):
            yield from flat(item)
        else:
            yield item


def is_callback(item):
    """Whether it is a Keras callback."""
    return isinstance(item, keras.callbacks.Callback)


def collect(trackables):
    """List everything that training changes: weights, seeds of random layers, optimizer state.

    And Keras' own seed generator, which `keras.random` uses where it is given none.

    Args:
        trackables: as for `Run.watch`.

    Returns:
        Tuple: list of variables without duplicates, and a dict of optimizers by name, that of `fit`
        under `""`.

    Raises:
        ValueError: if a model or an optimizer is not built, or an item is of another kind.
    """
    variables, optimizers = [], {}
    for item in flat(trackables):
        if isinstance(item, keras.Model):
            if not item.built:
                raise ValueError(f"{item.name} is not built: call it on a batch first")
            variables += [*item.variables, global_seed_generator().state]
            for model in (m for m in item._flatten_layers() if isinstance(m, keras.Model)):
                optimizer = getattr(model, "optimizer", None)
                if optimizer is not None and not optimizer.built:
                    with model.distribute_strategy.scope():
                        optimizer.build(model.trainable_variables)
            optimizers |= find_optimizers(item)
        elif isinstance(item, keras.optimizers.Optimizer):
            if item not in optimizers.values():
                optimizers[item.name] = item
        elif hasattr(item, "assign"):
            variables.append(item)
        elif not is_callback(item):
            raise ValueError(f"watch takes models, optimizers, variables, callbacks, not {item!r}")
    for name, optimizer in optimizers.items():
        if not optimizer.built:
            raise ValueError(
                f"the optimizer {name} is not built, so that a resumed run could not restore it: "
                "call its build(variables), with what it trains, before run.watch"
            )
        variables += optimizer.variables
    return list({id(v): v for v in variables}.values()), optimizers


def scope_of(trackables, strategy):
    """The scope of the strategy that the models among `trackables` were made in."""
    models = [item for item in flat(trackables) if isinstance(item, keras.Model)]
    strategy = models[0].distribute_strategy if models else strategy
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _keyed(callbacks):
    """Name callbacks by class and number, as in `EarlyStopping 0`."""
    seen = collections.Counter()
    for callback in callbacks:
        name = type(callback).__name__
        yield f"{name} {seen[name]}", callback
        seen[name] += 1


def get_callback_states(callbacks):
    """Give what callbacks have counted, a dict of dicts under their class and number."""
    states = {}
    for key, callback in _keyed(callbacks):
        if hasattr(callback, "get_state"):
            states[key] = callback.get_state()
        else:
            names = next((n for c, n in _CALLBACK_STATE.items() if isinstance(callback, c)), ())
            states[key] = {name: getattr(callback, name) for name in names}
    return states


def set_callback_states(callbacks, states):
    """Give callbacks back what `get_callback_states` gave; others start anew."""
    for key, callback in _keyed(callbacks):
        if key not in states:
            continue  # a new one: it starts to count now
        if hasattr(callback, "set_state"):
            callback.set_state(states[key])
        else:
            for name, value in states[key].items():
                setattr(callback, name, value)
