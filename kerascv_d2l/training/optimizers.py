"""Optimizers with a learning rate for every layer, and freezing that they survive.

One optimizer holds all variables and scales its rate by a factor of the
variable at the moment of the update. `keras.optimizers.MultiOptimizer`, an
optimizer for each group, was the alternative: under mixed precision Keras'
learning-rate callbacks fail on it, elsewhere one that sets a rate sets it for
all groups alike, and clipping by the global norm clips each group by its own.
"""

import re

import keras

from kerascv_d2l.errors import InputError

_PACKAGE = "kerascv_d2l"
_MOST_LISTED = 20  # layer names in an error message


def layer_rates(
    model,
    learning_rate,
    multipliers=None,
    optimizer=keras.optimizers.SGD,
    weight_decay=None,
    no_weight_decay=(),
    **arguments,
):
    """Make an optimizer in which groups of layers learn at multiples of one rate.

    `optimizer.learning_rate` is the base rate: a schedule, a warm-up, a
    callback (`ReduceLROnPlateau`, `LearningRateScheduler`, `LogRates` below)
    move all groups together and cannot change their ratios. Mixed precision,
    gradient accumulation, clipping, XLA and distribution work as in the
    optimizer it is made from.

    Rates that a text gives for the sum of the losses over a batch, as the book
    does, are converted by `mean_loss_rates`.

    Args:
        model: built `keras.Model`; the patterns are checked against its layers.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        multipliers: dict `{pattern: factor}`. A pattern is a regular expression
            that must match the whole name of a layer ("head",
            "layer[12]_.*") or the whole path of a variable
            ("head/kernel"). Layers that no pattern matches learn at the base
            rate. `geometric_multipliers` makes factors that fall off with depth.
        optimizer: a class of `keras.optimizers`, or a subclass of such.
        weight_decay: float, or None; decoupled, as in Keras: a step takes
            rate x factor x decay off a weight. With SGD without momentum that
            is PyTorch's.
        no_weight_decay: patterns, as above, of what does not decay:
            (".*/bias", ".*/gamma", ".*/beta").
        **arguments: others of the optimizer class (momentum, clipnorm,
            gradient_accumulation_steps, ...).

    Returns:
        `keras.optimizers.Optimizer`, a subclass of `optimizer`. A file with it
        loads where `kerascv_d2l.training.optimizers` has been imported.

    Raises:
        InputError: if a pattern is no regular expression or matches nothing, two
            match the same variable, or a factor is negative.
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, keras.optimizers.Optimizer)):
        raise InputError(
            f"optimizer={optimizer!r}: expected a class, such as keras.optimizers.Adam; its "
            "arguments go to layer_rates."
        )
    multipliers = dict(multipliers or {})
    # Frozen layers too: they may learn later.
    variables = [v for layer in _leaves(model) for v in layer.weights]
    for pattern, factor in multipliers.items():
        if not factor >= 0:
            raise InputError(f"multipliers={{{pattern!r}: {factor}}}: expected a factor >= 0.")
    _factors(multipliers, variables)
    for argument, patterns in (
        ("multipliers", multipliers),
        ("no_weight_decay", no_weight_decay),
    ):
        for pattern in patterns:
            if not any(_matches(pattern, v.path) for v in variables):
                raise InputError(
                    f"{argument}: {pattern!r} matches no variable. A pattern must match a whole "
                    f"layer name or variable path. Layers: {_some(_layer_names(model))}."
                )
    if isinstance(learning_rate, int):
        learning_rate = float(learning_rate)
    return _with_layer_rates(optimizer)(
        learning_rate=learning_rate,
        multipliers=multipliers,
        weight_decay=weight_decay,
        no_weight_decay=list(no_weight_decay),
        **arguments,
    )


def geometric_multipliers(patterns, factor):
    """Make multipliers that fall off with depth: 1, factor, factor squared, ...

    Args:
        patterns: layer-name patterns, from the output of the network to its
            input.
        factor: float, what a step towards the input multiplies the rate by.

    Returns:
        dict for `layer_rates`.
    """
    return {pattern: factor**i for i, pattern in enumerate(patterns)}


def mean_loss_rates(learning_rate, weight_decay, batch_size):
    """Convert rates meant for the sum of a batch's losses to those for their mean.

    The sum's gradient is `batch_size` times the mean's, so the rate must be
    that much larger; the decay of a step, rate x decay, must stay. This holds
    for SGD without momentum or weight averaging; Adam and its kin hardly
    notice the scale of a loss. With batches of 128, the book's 5e-5 and 1e-3
    become 6.4e-3 and 7.8e-6.

    Args:
        learning_rate: float, for the sum.
        weight_decay: float, for the sum.
        batch_size: examples in a batch.

    Returns:
        `(learning_rate, weight_decay)` for the mean.
    """
    return learning_rate * batch_size, weight_decay / batch_size


def group_rates(optimizer):
    """Look up the present learning rate of each group.

    Args:
        optimizer: from `layer_rates`, or `model.optimizer` of a model compiled
            with it.

    Returns:
        dict `{"base": rate, pattern: rate, ...}`.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # loss scaling wraps it
    base = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    multipliers = getattr(optimizer, "multipliers", {})
    return {"base": base} | {p: base * factor for p, factor in multipliers.items()}


class LogRates(keras.callbacks.Callback):
    """Add the rate of each group to the logs of an epoch: `learning_rate_head`, ..."""

    def on_epoch_end(self, epoch, logs=None):
        """Write the rates into `logs`, where `History` and `CSVLogger` find them."""
        if logs is not None:
            for name, rate in group_rates(self.model.optimizer).items():
                logs["learning_rate" if name == "base" else f"learning_rate_{name}"] = rate


def freeze(model, patterns):
    """Keep layers as they are in training.

    A frozen batch norm also runs in inference mode: it normalises by its stored
    statistics, and they do not change. The model may be compiled and half
    trained: its optimizer goes on with what is left, with the state it has.

    Args:
        model: built `keras.Model`.
        patterns: regular expressions that match whole layer names, or one.

    Raises:
        InputError: if a pattern matches no layer that has weights.
    """
    _set_trainable(model, patterns, False)


def unfreeze(model, patterns):
    """Let layers learn again; the opposite of `freeze`.

    Args:
        model: built `keras.Model`.
        patterns: regular expressions that match whole layer names, or one.

    Raises:
        InputError: if a pattern matches no layer that has weights.
    """
    _set_trainable(model, patterns, True)


def _set_trainable(model, patterns, trainable):
    layers = _leaves(model)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    found = {p: [layer for layer in layers if _fullmatch(p, layer.name)] for p in patterns}
    for pattern, matched in found.items():
        if not matched:
            raise InputError(
                f"{pattern!r} matches no layer with weights. There are: "
                f"{_some(_layer_names(model))}."
            )
    for matched in found.values():
        for layer in matched:
            layer.trainable = trainable
    _renew_optimizer(model)


def _renew_optimizer(model):
    """Give a compiled model an optimizer for the variables that it trains now.

    Keras' optimizers know the variables that they were built with, in their
    order, and a saved model is loaded with one built for the trainable ones. So
    it is made anew, and takes over the state of every variable that stays.
    """
    old = getattr(model, "optimizer", None)
    if old is None:
        return
    # The step that was traced trains what was trainable then.
    model.train_function = None
    if not old.built:
        return
    with model.distribute_strategy.scope():
        new = type(old).from_config(old.get_config())
        new.build(model.trainable_variables)
    state = {variable.path: variable for variable in old.variables}
    for variable in new.variables:
        if variable.path in state:
            variable.assign(state[variable.path])
    model.optimizer = new


class _LayerRates:
    """Mixed into an optimizer class: factors on the rate, and on its weight decay."""

    def __init__(self, *args, multipliers=None, no_weight_decay=(), **arguments):
        super().__init__(*args, **arguments)
        self.multipliers = dict(multipliers or {})
        self.no_weight_decay = list(no_weight_decay)

    def build(self, variables):
        # By the number of the variable: what update_step gets is TensorFlow's, without a path.
        if not self.built:
            self._rate_factors = _factors(self.multipliers, variables)
            self._decays = [
                not any(_matches(pattern, v.path) for pattern in self.no_weight_decay)
                for v in variables
            ]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        factor = self._rate_factors[index]
        rate = learning_rate if factor == 1 else learning_rate * factor
        if self.weight_decay is not None and self._decays[index]:
            decay = keras.ops.cast(rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, variable * decay)
        super().update_step(gradient, variable, rate)

    def _check_variables_are_known(self, variables):
        known = self._trainable_variables_indices
        unknown = [v.path for v in variables if self._var_key(v) not in known]
        if unknown:
            raise InputError(
                f"the optimizer was built before these could learn: {_some(unknown)}. Call "
                "kerascv_d2l.unfreeze(model, pattern) instead of setting `trainable`, "
                "or make and compile a new optimizer."
            )

    def _apply_weight_decay(self, variables):
        """Leave it to `update_step`, which knows the factor."""

    def get_config(self):
        return super().get_config() | {
            "multipliers": dict(self.multipliers),
            "no_weight_decay": list(self.no_weight_decay),
        }


_made = {}


def _with_layer_rates(optimizer_class):
    """Subclass an optimizer class, once."""
    if optimizer_class not in _made:
        name = f"LayerRates{optimizer_class.__name__}"
        made = type(name, (_LayerRates, optimizer_class), {"__module__": __name__})
        _made[optimizer_class] = keras.saving.register_keras_serializable(_PACKAGE)(made)
    return _made[optimizer_class]


# Keras finds a class in a file by its registered name: the usual ones are known from here on.
for _name in ("SGD", "RMSprop", "Adam", "AdamW", "Nadam", "Adamax", "Adagrad", "Lion", "Lamb"):
    _with_layer_rates(getattr(keras.optimizers, _name))


def _leaves(model):
    """List of the innermost layers that own weights."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if layer.weights and not list(layer._flatten_layers(include_self=False))
    ]


def _layer_names(model):
    return [layer.name for layer in _leaves(model)]


def _factors(multipliers, variables):
    """List with the factor of each variable; two patterns for one are an error."""
    factors = []
    for variable in variables:
        matching = [pattern for pattern in multipliers if _matches(pattern, variable.path)]
        if len(matching) > 1:
            raise InputError(
                f"multipliers: {' and '.join(map(repr, matching))} both match {variable.path}. "
                "Write them so that one does."
            )
        factors.append(float(multipliers[matching[0]]) if matching else 1.0)
    return factors


def _matches(pattern, path):
    """Whether a pattern matches the path of a variable, or a layer on it."""
    return any(_fullmatch(pattern, part) for part in (path, *path.split("/")[:-1]))


def _fullmatch(pattern, name):
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}.") from error


def _some(names):
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
