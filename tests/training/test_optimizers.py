"""Learning rates by layer: what the updates are, in every way of training."""

from pathlib import Path

import children
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers import BatchNorm
from kerascv_d2l.training.optimizers import (
    LogRates,
    freeze,
    group_rates,
    is_scheduled,
    layer_rates,
    make_optimizer,
    mean_loss_rates,
    rate_logs,
    unfreeze,
)

STEPS, BATCH = 4, 2
CALLBACKS = keras.callbacks
# no rate is a power of two, so that scaling shows in the last bits
RATE = 0.03


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


def mean_output(labels, outputs):
    """Loss whose gradient is the same at every step, wherever the weights are."""
    return keras.ops.mean(outputs, axis=-1)


def two_branches():
    """Linear layers "body" and "head" side by side: neither changes the other's gradient."""
    inputs = keras.Input((3,))
    body = keras.layers.Dense(4, name="body", kernel_initializer="ones")(inputs)
    head = keras.layers.Dense(4, name="head", kernel_initializer="ones")(inputs)
    return keras.Model(inputs, keras.layers.Add(dtype="float32")([body, head]))


def data():
    x = np.random.default_rng(0).uniform(1, 2, (STEPS * BATCH, 3)).astype("float32")
    return x, np.zeros((STEPS * BATCH, 4), "float32")


def total_step(multipliers, rate=RATE, callbacks=(), epochs=1, compiling=(), **arguments):
    """Train; dict of how far the kernel and the bias of each branch have moved."""
    model = two_branches()
    optimizer = layer_rates(model, rate, multipliers, **arguments)
    model.compile(optimizer, mean_output, **({"jit_compile": False} | dict(compiling)))
    before = {v.path: v.numpy() for v in model.trainable_variables}
    x, y = data()
    model.fit(x, y, BATCH, epochs, verbose=0, shuffle=False, callbacks=[c() for c in callbacks])
    return {v.path: v.numpy() - before[v.path] for v in model.trainable_variables}


def schedule():
    return keras.optimizers.schedules.CosineDecay(
        0.001, decay_steps=4, warmup_target=RATE, warmup_steps=2
    )


WAYS = {
    "plain": {},
    "schedule with warm-up": {"rate": schedule()},
    "plateau": {
        "callbacks": [lambda: CALLBACKS.ReduceLROnPlateau("loss", 0.3, patience=1, mode="max")],
        "epochs": 4,
    },
    "callback that ignores the old rate": {
        "callbacks": [lambda: CALLBACKS.LearningRateScheduler(lambda epoch: 0.01 * (epoch + 1))],
        "epochs": 3,
    },
    "mixed precision": {"policy": "mixed_float16"},
    "mixed precision and plateau": {
        "policy": "mixed_float16",
        "callbacks": [lambda: CALLBACKS.ReduceLROnPlateau("loss", 0.3, patience=1, mode="max")],
        "epochs": 4,
    },
    "accumulation": {"gradient_accumulation_steps": 2},
    "XLA": {"compiling": {"jit_compile": True}},
    "eager": {"compiling": {"run_eagerly": True}},
    "momentum": {"momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": keras.optimizers.Adam},
}


@pytest.mark.parametrize("way", WAYS)
def test_head_moves_ten_times_as_far_and_the_rest_as_before(way):
    options = dict(WAYS[way])
    keras.config.set_dtype_policy(options.pop("policy", "float32"))
    one = total_step({"head": 1}, **options)
    ten = total_step({"head": 10}, **options)
    for path, step in one.items():
        assert np.abs(step).min() > 0
        if path.startswith("head"):
            np.testing.assert_allclose(ten[path], 10 * step, rtol=2e-5, err_msg=path)
        else:
            np.testing.assert_array_equal(ten[path], step, err_msg=path)
    if way == "accumulation":
        half = total_step({})
        np.testing.assert_allclose(one["body/kernel"], half["body/kernel"] / 2, rtol=1e-4)


def test_plateau_has_lowered_the_rates():
    options = WAYS["plateau"]
    lowered = total_step({"head": 10}, **options)["head/bias"]
    steady = total_step({"head": 10}, epochs=options["epochs"])["head/bias"]
    assert np.all(np.abs(lowered) < 0.8 * np.abs(steady))


def test_one_step_of_sgd_is_rate_times_factor_times_gradient():
    model = two_branches()
    optimizer = layer_rates(model, 0.5, {"head": 4, "body/bias": 0})
    model.compile(optimizer, mean_output, jit_compile=False)
    x = np.array([[1, 2, 3]], "float32")
    model.train_on_batch(x, np.zeros((1, 4)))
    # gradient of the kernel: x / 4 outputs; of the bias: 1 / 4
    np.testing.assert_array_equal(
        model.get_layer("body").kernel, 1 - 0.5 * x.T / 4 * np.ones((3, 4))
    )
    np.testing.assert_array_equal(model.get_layer("head").kernel, 1 - 2 * x.T / 4 * np.ones((3, 4)))
    np.testing.assert_array_equal(model.get_layer("head").bias, np.full(4, -0.5))
    np.testing.assert_array_equal(model.get_layer("body").bias, np.zeros(4))


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "AdamW", "Lion"])
def test_any_class_with_a_factor_is_that_class_at_another_rate(name):
    optimizer_class = getattr(keras.optimizers, name)
    weights = []
    for factor, rate in ((3, 0.01), (1, 0.03)):
        keras.utils.set_random_seed(0)
        model = two_branches()
        optimizer = layer_rates(
            model, rate, {".*": factor}, optimizer=optimizer_class, weight_decay=0.1
        )
        assert isinstance(optimizer, optimizer_class)
        model.compile(optimizer, "mse", jit_compile=False)
        model.fit(*data(), BATCH, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    keras.utils.set_random_seed(0)
    model = two_branches()
    model.compile(optimizer_class(0.03, weight_decay=0.1), "mse", jit_compile=False)
    model.fit(*data(), BATCH, verbose=0, shuffle=False)
    for one, other, plain in zip(*weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one, plain, rtol=1e-5, atol=1e-6)


def test_weight_decay_follows_the_factor_and_its_exclusions():
    model = two_branches()
    for layer in ("body", "head"):
        model.get_layer(layer).bias.assign(np.full(4, 2.0))
    optimizer = layer_rates(
        model, 0.5, {"head": 0.5}, weight_decay=0.25, no_weight_decay=["head/bias"]
    )
    model.compile(optimizer, zero_loss, jit_compile=False)
    model.train_on_batch(np.ones((2, 3)), np.zeros((2, 4)))
    np.testing.assert_array_equal(model.get_layer("body").kernel, np.full((3, 4), 1 - 0.125))
    np.testing.assert_array_equal(model.get_layer("body").bias, np.full(4, 2 * (1 - 0.125)))
    np.testing.assert_array_equal(model.get_layer("head").kernel, np.full((3, 4), 1 - 0.0625))
    np.testing.assert_array_equal(model.get_layer("head").bias, np.full(4, 2.0))


def zero_loss(labels, outputs):
    return 0 * keras.ops.mean(outputs, axis=-1)


def decayed(optimizer_class, by_names=(), variables=(), renew=False, **arguments):
    """Train a step without gradient at rate 0.5; what is left of weights that were 1, by path."""
    model = two_branches()
    for layer in ("body", "head"):
        model.get_layer(layer).bias.assign(np.ones(4))
    optimizer = layer_rates(model, 0.5, {"head": 0.5}, optimizer_class, **arguments)
    if by_names or variables:
        optimizer.exclude_from_weight_decay(
            [model.get_layer(name).kernel for name in variables], list(by_names)
        )
    model.compile(optimizer, zero_loss, jit_compile=False)
    if renew:  # made anew from its config
        optimizer.build(model.trainable_variables)
        freeze(model, "head")
        unfreeze(model, "head")
    model.train_on_batch(np.ones((2, 3)), np.zeros((2, 4)))
    return {v.path: float(v.numpy().ravel()[0]) for v in model.trainable_variables}


@pytest.mark.parametrize("renew", [False, True])
def test_keras_own_exclusion_from_weight_decay_is_honoured(renew):
    found = decayed(keras.optimizers.SGD, ["bias"], ["head"], renew=renew, weight_decay=0.1)
    wanted = {"body/kernel": 1 - 0.05, "body/bias": 1, "head/kernel": 1, "head/bias": 1}
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["AdamW", "Muon"])
def test_without_a_decay_the_class_keeps_its_own(name):
    found = decayed(getattr(keras.optimizers, name))
    wanted = {"body": 1 - 0.5 * 0.004, "head": 1 - 0.25 * 0.004}
    assert found == pytest.approx({path: wanted[path.split("/")[0]] for path in found})
    assert set(decayed(keras.optimizers.Adam).values()) == {1.0}


def test_muon_decays_its_matrices_and_the_rest_by_two_numbers():
    found = decayed(keras.optimizers.Muon, weight_decay=0.1, adam_weight_decay=0.2)
    assert found["body/kernel"] == pytest.approx(1 - 0.05)
    assert found["body/bias"] == pytest.approx(1 - 0.1)


def test_optimizers_by_name():
    model = two_branches()
    sgd = make_optimizer("sgd", 0.5, momentum=0.9, weight_decay=0.1)
    assert (sgd.momentum, sgd.weight_decay) == (0.9, 0.1)
    assert make_optimizer("adamw", 0.5).weight_decay == 0.004
    assert make_optimizer("adam", 0.5).weight_decay is None
    cosine = make_optimizer("adam", 0.5, schedule="cosine", steps=4)
    assert is_scheduled(cosine) and not is_scheduled(sgd)
    assert is_scheduled(keras.optimizers.LossScaleOptimizer(cosine))
    rates = make_optimizer("adam", 0.5, model=model, multipliers={"head": 2}, schedule="constant")
    assert group_rates(rates) == {"base": 0.5, "head": 1.0}
    assert rate_logs({"": rates, "critic": sgd}) == {
        "learning_rate": 0.5,
        "learning_rate_head": 1.0,
        "learning_rate_critic": 0.5,
    }
    for arguments in (("lion", 0.1), ("sgd", 0.1, "linear")):
        with pytest.raises(InputError, match="expected one of"):
            make_optimizer(*arguments[:2], schedule=arguments[2] if arguments[2:] else "constant")


def stepper(optimizer, variables, way):
    def step(*gradients):
        optimizer.apply(gradients, variables)

    return step if way == "eager" else tf.function(step, jit_compile=way == "xla")


@pytest.mark.parametrize("name", ["sgd", "adamw", "half"])
@pytest.mark.parametrize("way", ["eager", "graph", "xla"])
def test_fewer_operations_do_what_keras_do(name, way):
    """A step in one operation, and the running mean in one."""
    classes = {"sgd": keras.optimizers.SGD, "adamw": keras.optimizers.AdamW}
    settings = {"weight_decay": 0.1} | ({} if name == "adamw" else {"momentum": 0.9})
    dtype = "bfloat16" if name == "half" else "float32"
    name = name.replace("half", "sgd")
    ours = make_optimizer(name, 0.3, averaging=0.2, **settings)
    theirs = classes[name](0.3, use_ema=True, ema_momentum=0.2, **settings)
    states = []
    for optimizer in (ours, theirs):
        variables = [keras.Variable([[1.0, -2.0]], dtype=dtype), keras.Variable([0.5], dtype=dtype)]
        optimizer.build(variables)
        # What was there before the first step does not count.
        optimizer._model_variables_moving_average[0].assign([[7.0, -9.0]])
        step = stepper(optimizer, variables, way if optimizer is ours else "eager")
        for k in range(5):
            # Ours forgets its start sooner: 1/10, 2/11, 3/12 and so on, but 0.2 at most.
            theirs.ema_momentum = min(0.2, (1 + k) / (10 + k))
            step(tf.constant([[k - 0.9, 0.4]], dtype), tf.constant([0.2 * k], dtype))
        states.append([np.float32(v.numpy()) for v in (*variables, *optimizer.variables)])
    for one, other in zip(*states, strict=True):
        # TensorFlow's Adam has 1 - 0.999 in float32, Keras' in float64.
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if name == "adamw" else {"rtol": 1e-6}
        if dtype == "bfloat16":
            tolerance = {"rtol": 0.02}
        np.testing.assert_allclose(one, other, **tolerance)


def test_freezing_a_nested_model_by_its_name():
    inner = keras.Sequential(
        [keras.layers.Conv2D(4, 3, name="a"), BatchNorm(name="b")], name="encoder"
    )
    model = keras.Sequential([keras.Input((6, 6, 3)), inner, keras.layers.Conv2D(1, 1, name="c")])
    freeze(model, "encoder")
    assert {v.path.split("/")[-2] for v in model.trainable_variables} == {"c"}
    unfreeze(model, "enc.*")
    assert {v.path.split("/")[-2] for v in model.trainable_variables} == {"a", "b", "c"}
    layer_rates(model, 0.1, {"encoder": 0.1})  # as here


def deep(norm=True):
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="stem")(inputs)
    x = BatchNorm(name="stem_norm")(x) if norm else x
    x = keras.layers.Conv2D(4, 3, activation="relu", name="middle")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def train(model, epochs=1):
    draw = np.random.default_rng(0)
    x = draw.standard_normal((8, 6, 6, 3)).astype("float32")
    y = draw.standard_normal((8, 3)).astype("float32")
    return model.fit(
        x, y, 4, initial_epoch=0, epochs=epochs, verbose=0, shuffle=False, callbacks=[LogRates()]
    )


def compiled(policy="float32", **options):
    keras.config.set_dtype_policy(policy)
    model = deep()
    arguments = {
        "learning_rate": schedule(),
        "multipliers": {"head": 10, "stem.*": 0.1},
        "optimizer": keras.optimizers.Adam,
        "weight_decay": 0.01,
        "no_weight_decay": [".*/bias", ".*/gamma"],
    }
    model.compile(layer_rates(model, **(arguments | options)), "mse", jit_compile=False)
    return model


@pytest.mark.parametrize(("policy", "frozen"), [("float32", ("stem.*",)), ("mixed_float16", ())])
def test_saved_loaded_and_resumed_is_as_if_never_interrupted(tmp_path, policy, frozen):
    straight = compiled(policy)
    freeze(straight, frozen)
    start = straight.get_weights()
    train(straight, 4)
    interrupted = compiled(policy)
    freeze(interrupted, frozen)
    interrupted.set_weights(start)
    train(interrupted, 2)
    interrupted.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    train(resumed, 2)
    for one, other in zip(resumed.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert group_rates(resumed.optimizer) == group_rates(straight.optimizer)


def test_groups_are_named_in_the_logs():
    model = compiled(learning_rate=0.02)
    history = train(model).history
    found = {key: values[0] for key, values in history.items() if "rate" in key}
    assert found == pytest.approx(
        {"learning_rate": 0.02, "learning_rate_head": 0.2, "learning_rate_stem.*": 0.002}
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_first_the_head_then_the_rest(policy):
    model = compiled(policy, learning_rate=0.01)
    freeze(model, ["stem.*", "middle"])

    def moved(epochs=1):
        before = {v.path: v.numpy() for v in model.weights}
        train(model, epochs)
        return {
            v.path.split("/")[0]
            for v in model.weights
            if np.abs(v.numpy() - before[v.path]).max() > 0
        }

    assert moved() == {"head"}  # neither statistics nor decay touch the others
    unfreeze(model, "middle")
    assert moved() == {"head", "middle"}
    unfreeze(model, ["stem", "stem_norm"])
    assert moved() == {"head", "middle", "stem", "stem_norm"}
    freeze(model, "head")
    assert moved() == {"middle", "stem", "stem_norm"}


def test_freezing_keeps_the_state_of_what_still_learns():
    """A frozen branch changes nothing for the other, whose gradient does not depend on it."""
    paths = []
    for freezing in (False, True):
        keras.utils.set_random_seed(0)
        model = two_branches()
        optimizer = layer_rates(model, RATE, {"head": 10}, momentum=0.9)
        model.compile(optimizer, mean_output, jit_compile=False)
        model.fit(*data(), BATCH, verbose=0, shuffle=False)
        if freezing:
            freeze(model, "body")
            unfreeze(model, "body")
            freeze(model, "body")
        model.fit(*data(), BATCH, verbose=0, shuffle=False)
        assert model.optimizer.iterations == 2 * STEPS
        paths.append(model.get_layer("head").kernel.numpy())
    np.testing.assert_array_equal(*paths)


def test_the_mean_of_what_begins_to_learn_begins_at_what_it_is():
    keras.utils.set_random_seed(0)
    model = two_branches()
    freeze(model, "body")
    model.compile(make_optimizer("adam", 1e-6, averaging=0.99, model=model), mean_output)
    model.fit(*data(), BATCH, 12, verbose=0)
    before = model.get_layer("body").kernel.numpy()
    unfreeze(model, "body")
    model.fit(*data(), BATCH, verbose=0)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_allclose(model.get_layer("body").kernel, before, atol=1e-4)


def test_unfreezing_by_hand_says_what_to_do():
    model = compiled(learning_rate=0.01)
    freeze(model, "stem.*")
    train(model)
    model.get_layer("stem").trainable = True
    model.compile(model.optimizer, "mse")
    with pytest.raises(InputError, match=r"stem/kernel.*unfreeze\(model, pattern\)"):
        train(model)


def test_frozen_batch_norm_normalises_by_its_statistics():
    model = compiled()
    norm = model.get_layer("stem_norm")
    norm.moving_mean.assign(np.arange(4))
    freeze(model, "stem_norm")
    x = np.random.default_rng(0).standard_normal((4, 6, 6, 3)).astype("float32")
    np.testing.assert_array_equal(model(x, training=True), model(x, training=False))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multipliers": {"heat": 10}}, r"'heat' matches no variable.*stem, stem_norm, middle"),
        ({"multipliers": {"stem": 2, "st.*": 3}}, r"'stem' and 'st\.\*' both match stem/kernel"),
        ({"multipliers": {"head": -1}}, r"'head': -1.*factor >= 0"),
        ({"multipliers": {"head(": 1}}, r"'head\(' is not a regular expression"),
        ({"no_weight_decay": ["bias"]}, r"no_weight_decay: 'bias' matches no variable"),
        ({"optimizer": "sgd"}, r"optimizer='sgd': expected a class"),
        ({"optimizer": keras.optimizers.SGD()}, r"expected a class"),
    ],
)
def test_patterns_that_cannot_be_meant(arguments, message):
    with pytest.raises(InputError, match=message):
        layer_rates(deep(), 0.1, **arguments)


def test_freezing_what_is_not_there():
    model = deep()
    with pytest.raises(InputError, match="'heat' matches no layer with weights"):
        freeze(model, ["stem", "heat"])
    assert model.get_layer("stem").trainable


def test_frozen_layers_may_have_patterns():
    model = deep()
    freeze(model, "stem.*")
    layer_rates(model, 0.1, {"stem.*": 0.1, "head": 2})


def test_the_books_rates_for_a_mean_loss():
    rate, decay = mean_loss_rates(5e-5, 1e-3, 128)
    assert rate == pytest.approx(6.4e-3)
    assert decay == pytest.approx(7.8125e-6)
    # and they give the same step
    weights = []
    for learning_rate, weight_decay, reduction in (
        (0.01, 0.5, "sum"),
        (*mean_loss_rates(0.01, 0.5, 8), "sum_over_batch_size"),
    ):
        keras.utils.set_random_seed(1)
        model = deep(norm=False)
        optimizer = layer_rates(model, learning_rate, {"head": 10}, weight_decay=weight_decay)
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        model.compile(optimizer, loss, jit_compile=False)
        x = np.random.default_rng(0).standard_normal((8, 6, 6, 3))
        model.fit(x, np.zeros((8, 3)), 8, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 10.0, np.nan])
def test_clips_as_keras_does(scale):
    gradients = [scale * np.float32([[3], [0], [-2]]), scale * np.float32([1])]
    steps = []
    for make in (
        lambda model: layer_rates(model, 1.0, {}, global_clipnorm=2.0),
        lambda model: keras.optimizers.SGD(1.0, global_clipnorm=2.0),
    ):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.set_weights([np.zeros((3, 1)), np.zeros(1)])
        variables = model.trainable_variables
        optimizer = make(model)
        optimizer.build(variables)
        optimizer.apply([tf.constant(g) for g in gradients], variables)
        steps.append([v.numpy() for v in variables])
    for one, other in zip(*steps, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    if scale == 10:
        assert np.sqrt(sum((part**2).sum() for part in steps[0])) == pytest.approx(2, rel=1e-5)


MIRRORED = """
import sys
sys.path.insert(0, sys.argv[1])
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from test_optimizers import two_branches, data, mean_output, layer_rates, freeze, unfreeze, BATCH
results = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        model = two_branches()
        averaging = {"use_ema": True, "ema_momentum": 0.9}
        # The norm of the first gradient is 0.9: clipped in two parts it would be larger.
        options = {"momentum": 0.9, "weight_decay": 0.1, "global_clipnorm": 0.3} | averaging
        optimizer = layer_rates(model, 0.03, {"head": 10}, **options)
        model.compile(optimizer, mean_output, jit_compile=False)
    model.fit(*data(), BATCH, verbose=0, shuffle=False)
    results.append(model.get_weights())
    freeze(model, "body")
    model.fit(*data(), BATCH, verbose=0, shuffle=False)
    unfreeze(model, "body")
    model.fit(*data(), BATCH, verbose=0, shuffle=False)
    results[-1] += model.get_weights()
    means = [mean.value for mean in model.optimizer._model_variables_moving_average]
    parts = [strategy.experimental_local_results(mean) for mean in means]
    assert len(parts) == 4 and all(np.abs(part[0].numpy()).min() > 0 for part in parts)
    results[-1] += [part[k % len(part)].numpy() for part in parts for k in range(2)]
assert strategy.num_replicas_in_sync == 2
for one, other in zip(*results):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
print("the same")
"""


def test_mirrored_over_two_devices(tmp_path):
    (tmp_path / "mirrored.py").write_text(MIRRORED)
    run = children.run(tmp_path / "mirrored.py", Path(__file__).parent)
    assert run.stdout.strip().endswith("the same"), run.stderr[-3000:]
