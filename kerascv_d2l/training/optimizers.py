"""Optimizers by name, learning rates by layer, and freezing.

One optimizer holds all variables and scales its rate by a factor of the variable at the moment
of the update. `keras.optimizers.MultiOptimizer`, an optimizer for each group, was the
alternative: under mixed precision Keras' learning-rate callbacks fail on it, elsewhere one that
sets a rate sets it for all groups alike, and clipping by the global norm clips each group by its
own. Some hooks of Keras' optimizers that are used here are private: `keras<3.16` guards them.
"""

import re

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError, first_of

_PACKAGE = "kerascv_d2l"
_CLASSES = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
SCHEDULES = ("constant", "cosine")
_MOST_LISTED = 4  # layers in the name of a rate


def make_optimizer(
    name,
    learning_rate,
    *,
    schedule="constant",
    steps=None,
    weight_decay=None,
    momentum=0.0,
    warmup=0.0,
    clip_norm=None,
    averaging=None,
    model=None,
    multipliers=None,
):
    """Make an optimizer by name.

    Args:
        name: `"adam"`, `"adamw"` or `"sgd"`.
        learning_rate: float, the highest.
        schedule: `"constant"`, or `"cosine"`: falling to 0 along half a cosine.
        steps: int, updates of the whole training; needed for a cosine.
        weight_decay: float, decoupled as in AdamW, or None for the class's own.
        momentum: float, of SGD.
        warmup: float in [0, 1): share of the updates in which a cosine's rate first rises from 0.
        clip_norm: float: gradients whose norm over all variables is larger are scaled down to
            it; None for no limit.
        averaging: float in [0, 1): momentum of a running mean of the weights (Keras'
            `use_ema`), which `AverageWeights` measures and keeps; None for none. Before update t
            it is (1 + t) / (10 + t) at most, so that the first weights are soon forgotten.
        model: built `keras.Model`; needed for `multipliers`.
        multipliers: dict `{pattern: factor}` for `layer_rates`, or None.

    Returns:
        `keras.optimizers.Optimizer`, a subclass of Keras' class as `layer_rates` makes it, which
        takes fewer operations for momentum and for the running mean.

    Raises:
        InputError: if a name is unknown, or as `layer_rates`.
    """
    if name not in _CLASSES:
        raise InputError(f"optimizer={name!r}: expected one of {', '.join(_CLASSES)}")
    if schedule not in SCHEDULES:
        raise InputError(f"schedule={schedule!r}: expected one of {', '.join(SCHEDULES)}")
    arguments = {"momentum": momentum} if name == "sgd" else {}
    if clip_norm:
        arguments["global_clipnorm"] = clip_norm
    if averaging:
        arguments |= {"use_ema": True, "ema_momentum": averaging}
    rate = learning_rate
    if schedule == "cosine":
        rate = _cosine(learning_rate, steps, warmup)
    if multipliers:
        return layer_rates(model, rate, multipliers, _CLASSES[name], weight_decay, **arguments)
    if weight_decay is not None:
        arguments["weight_decay"] = weight_decay
    # Ours update in fewer operations.
    return _with_layer_rates(_CLASSES[name])(rate, **arguments)


def _cosine(learning_rate, steps, warmup):
    rising = round(warmup * steps)
    if not rising:
        return keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - rising, warmup_target=learning_rate, warmup_steps=rising
    )


def is_scheduled(optimizer):
    """Whether a schedule, made for a number of steps, sets an optimizer's learning rate."""
    rate = getattr(_inner(optimizer), "_learning_rate", None)
    return isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)


def find_optimizers(model):
    """Find the optimizers of a model: that of `compile`, and attributes of it and its layers.

    Args:
        model: `keras.Model`.

    Returns:
        dict `{name: optimizer}`, without duplicates: `""` for that of `compile`, else the name
        of the attribute.
    """
    main = getattr(model, "optimizer", None)
    found = {} if main is None else {"": main}
    for layer in model._flatten_layers():
        # What Keras and TensorFlow keep of the same objects comes last, for the names.
        for name, value in sorted(vars(layer).items(), key=lambda item: item[0].startswith("_")):
            several = list(value.values()) if isinstance(value, dict) else value
            for i, item in enumerate(several if isinstance(several, (list, tuple)) else [value]):
                known = any(item is one for one in found.values())
                if isinstance(item, keras.optimizers.Optimizer) and not known:
                    key = name if item is value else f"{name}_{i}"
                    found[key if key not in found else f"{layer.name}_{key}"] = item
    return found


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
            rate.
        optimizer: a class of `keras.optimizers`, or a subclass of such.
        weight_decay: float, decoupled, as in Keras: a step takes rate x factor x decay off a
            weight. With SGD without momentum that is PyTorch's. None for the class's own: 0.004
            for AdamW and Muon, none for most.
        no_weight_decay: patterns, as above, of what does not decay:
            (".*/bias", ".*/gamma", ".*/beta"). The optimizer's `exclude_from_weight_decay` adds
            to them.
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
    for argument, patterns in (("multipliers", multipliers), ("no_weight_decay", no_weight_decay)):
        for pattern in patterns:
            if not any(_matches(pattern, v.path) for v in variables):
                raise InputError(
                    f"{argument}: {pattern!r} matches no variable. A pattern must match a whole "
                    f"layer name or variable path. Layers: {_layer_names(model)}."
                )
    if isinstance(learning_rate, int):
        learning_rate = float(learning_rate)
    if weight_decay is not None:
        arguments["weight_decay"] = weight_decay
    return _with_layer_rates(optimizer)(
        learning_rate=learning_rate,
        multipliers=multipliers,
        no_weight_decay=list(no_weight_decay),
        **arguments,
    )


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
    optimizer = _inner(optimizer)
    base = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    multipliers = getattr(optimizer, "multipliers", {})
    return {"base": base} | {p: base * factor for p, factor in multipliers.items()}


def rate_logs(optimizers):
    """Name the present learning rates for the logs of an epoch.

    Args:
        optimizers: dict `{name: optimizer}`, as of `find_optimizers`.

    Returns:
        dict `{"learning_rate": rate, "learning_rate_PATTERN": rate, "learning_rate_NAME": …}`.
    """
    logs = {}
    for name, optimizer in optimizers.items():
        prefix = "_".join(filter(None, ("learning_rate", name)))
        for group, rate in group_rates(optimizer).items():
            logs[prefix if group == "base" else f"{prefix}_{_short(group)}"] = rate
    return logs


def _short(pattern):
    """A pattern that lists many layers, by its first: what a line of progress has room for."""
    first, *others = pattern.split("|")
    return pattern if len(others) < _MOST_LISTED else f"{first}…"


class LogRates(keras.callbacks.Callback):
    """Add the learning rates to the logs of an epoch, where no `Run` does it."""

    def on_epoch_end(self, epoch, logs=None):
        """Write the rates into `logs`, where `History` and `CSVLogger` find them."""
        logs.update(rate_logs(find_optimizers(self.model)))


def _inner(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)  # loss scaling wraps it


def freeze(model, patterns, trainable=False):
    """Keep layers as they are in training.

    A frozen batch norm also runs in inference mode: it normalises by its stored
    statistics, and they do not change. The model may be compiled and half
    trained: its optimizer goes on with what is left, with the state it has.

    Args:
        model: built `keras.Model`.
        patterns: regular expressions, or one, that match the whole name of a layer, or of a
            nested model with all its layers.
        trainable: bool: True for the opposite, see `unfreeze`.

    Raises:
        InputError: if a pattern matches no layer that has weights.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    everything = list(model._flatten_layers(include_self=False))
    leaves = {id(layer) for layer in _leaves(model)}
    found = {}
    for pattern in patterns:
        named = [layer for layer in everything if _fullmatch(pattern, layer.name)]
        parts = [part for layer in named for part in layer._flatten_layers()]
        found[pattern] = [part for part in parts if id(part) in leaves]
    for pattern, matched in found.items():
        if not matched:
            raise InputError(
                f"{pattern!r} matches no layer with weights. There are: {_layer_names(model)}."
            )
    for matched in found.values():
        for layer in matched:
            layer.trainable = trainable
    _renew_optimizer(model)


def unfreeze(model, patterns):
    """Let layers learn again, the opposite of `freeze`, with its arguments and errors."""
    freeze(model, patterns, trainable=True)


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
    inner = getattr(new, "inner_optimizer", new)  # of a loss scale
    if inner.use_ema:  # the mean of what begins to learn now is what it is now, not 0
        means = inner._model_variables_moving_average
        for variable, mean in zip(model.trainable_variables, means, strict=True):
            if mean is not None and mean.path not in state:
                mean.assign(variable)
    model.optimizer = new


class _LayerRates:
    """Mixed into an optimizer class: factors on the rate, and on its weight decay."""

    def __init__(self, *args, multipliers=None, no_weight_decay=(), **arguments):
        super().__init__(*args, **arguments)
        self.multipliers = dict(multipliers or {})
        self.no_weight_decay = list(no_weight_decay)
        self._at_once = None  # what Keras does in some ten operations for each variable
        if isinstance(self, keras.optimizers.SGD) and self.momentum > 0 and not self.nesterov:
            self._at_once = self._momentum_at_once
        elif isinstance(self, keras.optimizers.Adam) and not self.amsgrad:
            self._at_once = self._adam_at_once

    def build(self, variables):
        # By the number of the variable: what update_step gets is TensorFlow's, without a path.
        if not self.built:
            self._rate_factors = _factors(self.multipliers, variables)
            self._decays = [self._decay_of(v) for v in variables]
        super().build(variables)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Exclude variables from weight decay, as Keras does; saved with the optimizer."""
        super().exclude_from_weight_decay(var_list, var_names)
        self.no_weight_decay += [re.escape(v.path) for v in var_list or ()]
        self.no_weight_decay += [rf"(?:.*/)?[^/]*(?:{name})[^/]*" for name in var_names or ()]

    def _decay_of(self, variable):
        if any(_matches(pattern, variable.path) for pattern in self.no_weight_decay):
            return 0.0
        if hasattr(self, "adam_weight_decay") and self._should_use_adamw(variable):  # Muon
            return self.adam_weight_decay or 0.0
        return self.weight_decay or 0.0

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        factor = self._rate_factors[index]
        rate = learning_rate if factor == 1 else learning_rate * factor
        if self._decays[index]:
            decay = keras.ops.cast(rate * self._decays[index], variable.dtype)
            self.assign_sub(variable, variable * decay)
        if self._at_once and isinstance(gradient, tf.Tensor):
            self._at_once(gradient, variable, rate)
        else:
            super().update_step(gradient, variable, rate)

    def _momentum_at_once(self, gradient, variable, rate):
        """Update one variable when its gradient is there, where the gradient is dense.

        Keras' SGD multiplies all momenta before the first gradient is there: a copy of all weights.
        """
        self._apply(
            tf.raw_ops.ResourceApplyKerasMomentum,
            variable,
            {"accum": self.momentums},
            {"lr": rate, "grad": gradient, "momentum": self.momentum},
        )

    def _adam_at_once(self, gradient, variable, rate):
        """Update one variable, where the gradient is dense.

        Keras' Adam passes ten times over each variable.
        """
        step = tf.cast(self.iterations + 1, tf.float32)
        self._apply(
            tf.raw_ops.ResourceApplyAdam,
            variable,
            {"m": self._momentums, "v": self._velocities},
            {
                "beta1_power": self.beta_1**step,
                "beta2_power": self.beta_2**step,
                "lr": rate,
                "beta1": self.beta_1,
                "beta2": self.beta_2,
                "epsilon": self.epsilon,
                "grad": gradient,
            },
        )

    def _apply(self, operation, variable, slots, values):
        """Call an operation of TensorFlow that changes a variable and the optimizer's own."""
        index = self._get_variable_index(variable)
        operation(
            var=variable.handle,
            **{name: slot[index].value.handle for name, slot in slots.items()},
            **{name: tf.cast(value, variable.dtype) for name, value in values.items()},
            use_locking=True,
        )

    def _clip_gradients(self, grads):
        """Leave it to `_all_reduce_sum_gradients`."""
        return grads

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Add up the devices' gradients, then clip them; Keras clips each device's part.

        Two parts of norm c add up to a gradient of norm 2 c.
        """
        gradients, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        if self.global_clipnorm and not self.clipnorm:
            gradients = _clipped(gradients, self.global_clipnorm)
        else:
            gradients = super()._clip_gradients(gradients)
        return list(zip(gradients, variables, strict=True))

    def _update_model_variables_moving_average(self, trainable_variables):
        """Move the running means as Keras does, in one operation a variable instead of 9.

        The first weights have learned nothing, and are 37 % of Keras' mean of 100 with a momentum
        of 0.99. So the mean forgets sooner at first, as `tf.train.ExponentialMovingAverage` does
        with `num_updates`.

        With the 200 variables, most of them small, of a network for a folder Keras' take some
        percent of a step. With a share s of the variable v the mean m becomes (1 - s) m + s v,
        which is (m + r v) / (1 + r) with r = s / (1 - s): a step of proximal gradient descent,
        (m - alpha g) / (1 + alpha l2), with alpha = -r, l2 = -1 and v for the gradient g.
        """
        if not self.use_ema:
            return
        updates = tf.cast(self.iterations, tf.float32)
        keep = tf.minimum(self.ema_momentum, (1.0 + updates) / (10.0 + updates))
        # The first step leaves nothing of the mean but what rounding to float32 loses anyway.
        share = tf.where(tf.equal(self.iterations, 0), 1.0 - 2.0**-24, 1.0 - keep)
        alpha = share / (share - 1.0)
        for variable, mean in zip(
            trainable_variables, self._model_variables_moving_average, strict=True
        ):
            if mean is None:
                continue
            if mean.dtype == "float32":
                tf.raw_ops.ResourceApplyProximalGradientDescent(
                    var=mean.value.handle,
                    alpha=alpha,
                    l1=0.0,
                    l2=-1.0,
                    delta=variable.value,
                    use_locking=True,
                )
            else:  # in 16 bits 1 + r has too few digits
                step = (variable.value - mean.value) * tf.cast(share, mean.dtype)
                mean.value.assign_add(step)

    def _check_variables_are_known(self, variables):
        known = self._trainable_variables_indices
        unknown = [v.path for v in variables if self._var_key(v) not in known]
        if unknown:
            raise InputError(
                f"the optimizer was built before these could learn: {first_of(unknown)}. Call "
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


def _clipped(gradients, most):
    """Scale gradients down to a global norm; Keras multiplies them by 1, too, in most updates."""
    norm = tf.linalg.global_norm(gradients)
    return tf.cond(
        norm <= most,  # not so of NaN, which makes all of them NaN
        lambda: list(gradients),
        lambda: tf.clip_by_global_norm(gradients, most, use_norm=norm)[0],
    )


_made = {}


def _with_layer_rates(optimizer_class):
    """Subclass an optimizer class, once."""
    if optimizer_class not in _made:
        name = f"LayerRates{optimizer_class.__name__}"
        made = type(name, (_LayerRates, optimizer_class), {"__module__": __name__})
        _made[optimizer_class] = keras.saving.register_keras_serializable(_PACKAGE)(made)
    return _made[optimizer_class]


# Keras finds a class in a file by its registered name: the usual ones are known from here on.
for _name in (
    *("SGD", "RMSprop", "Adam", "AdamW", "Nadam"),
    *("Adamax", "Adagrad", "Lion", "Lamb", "Muon"),
):
    _with_layer_rates(getattr(keras.optimizers, _name))


def _leaves(model):
    """List of the innermost layers that own weights."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if layer.weights and not list(layer._flatten_layers(include_self=False))
    ]


def _layer_names(model):
    return first_of(layer.name for layer in _leaves(model))


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
