"""The mechanism that all training scripts share, on a toy model and toy data."""

import argparse
import csv
import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_child as toy

from kerascv_d2l.errors import InputError
from kerascv_d2l.training import (
    Progress,
    Run,
    Throughput,
    add_run_arguments,
    image_size,
    learning_rates,
    load_checkpoint,
    run_main,
    save_checkpoint,
    set_up,
)

CHILD = Path(toy.__file__)


@pytest.fixture(autouse=True)
def _clean_state():
    yield
    keras.config.set_dtype_policy("float32")


def _history(folder):
    """Columns of `history.csv`, without those that measure time."""
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    timed = ("seconds", "images_per_second")
    return {k: [row[k] for row in rows] for k in rows[0] if k not in timed}


def _weights(folder):
    with np.load(folder / "weights.npz") as file:
        return [file[name] for name in file.files]


def _assert_same_run(one, two):
    assert _history(one) == _history(two)
    for a, b in zip(_weights(one), _weights(two), strict=True):
        np.testing.assert_array_equal(a, b)
    a, b = (json.loads((folder / "metrics.json").read_text()) for folder in (one, two))
    assert (a["loss"], a["accuracy"], a["epochs"]) == (b["loss"], b["accuracy"], b["epochs"])


def _jobs(jobs):
    """Run toy trainings, each in a process of its own; see training_child.py."""
    run = subprocess.run(
        [sys.executable, str(CHILD)],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), run.stderr


def test_killed_at_any_moment_and_resumed(tmp_path):
    """SIGKILL in an epoch, in the middle of writing, before and after the rename."""
    whole, killed, devices = tmp_path / "whole", tmp_path / "killed", tmp_path / "devices"
    resume = ["--out", str(killed), "--resume"]
    jobs = [
        {"argv": ["--out", str(whole)]},
        {"argv": ["--out", str(killed)], "kill": "0:3"},
        {"argv": resume, "kill": "1:half"},
        {"argv": resume, "kill": "1:before"},
        {"argv": resume, "kill": "1:after"},
        {"argv": resume, "kill": "3:1"},
        {"argv": resume},
        {"argv": [*resume, "--seed", "3", "--learning-rate", "0.5"]},
        {"argv": ["--out", str(killed)]},
    ]
    # Two devices and a rate for each layer: what other tests of this file do on one device.
    two = ["--devices", "cpu:2", "--optimizer", "multi", "--epochs", "3"]
    jobs += [
        {"argv": [*two, "--out", str(devices / "whole")]},
        {"argv": [*two, "--out", str(devices / "killed")], "kill": "1:2"},
        {"argv": [*two, "--out", str(devices / "killed"), "--resume"]},
    ]
    results, stderr = _jobs(jobs)
    assert not stderr  # TensorFlow is imported without a word
    outputs = [result["output"] for result in results]
    status = [result["status"] for result in results]
    assert status == [0, -9, -9, -9, -9, -9, 0, 2, 2, 0, -9, 0], "\n".join(outputs)

    assert "resuming" not in outputs[2] and "nothing to resume" in outputs[2]
    assert "resuming after epoch 1 of 4" in outputs[3]  # the half-written one does not count
    assert "resuming after epoch 1 of 4" in outputs[4]  # nor the one without its name
    assert "resuming after epoch 2 of 4" in outputs[5]
    assert "resuming after epoch 3 of 4" in outputs[6]
    _assert_same_run(whole, killed)
    _assert_same_run(devices / "whole", devices / "killed")
    for folder in (killed, devices / "killed"):
        assert sorted(os.listdir(folder)) == [
            "checkpoint.npz",
            "history.csv",
            "history.png",
            "metrics.json",
            "settings.json",
            "weights.npz",
        ]

    assert "--seed was 0 and is now 3" in outputs[7]
    assert "--learning-rate was 0.01 and is now 0.5" in outputs[7]
    assert "already holds a run" in outputs[8] and "--resume" in outputs[8]
    for output in outputs:
        assert "Traceback" not in output and "Warning" not in output, output
        assert "\b" not in output and "\r" not in output  # a log, not a terminal
        assert "0000 " not in output, output  # I0000, W0000, E0000 of TensorFlow
    assert outputs[0].count("epoch ") == 4 and "images/s" in outputs[0]


class _Stop(keras.callbacks.Callback):
    """Break off where a kill would, within this process."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise RuntimeError("killed")


def _train(argv, *, callbacks=(), stop=None, change=None):
    """Train the toy in this process; returns the run, its model and its callbacks."""
    args = toy.parser().parse_args(argv)
    set_up(args)
    run = Run.start(args, "toy")
    train, validation = toy.make_data(args)
    model = toy.make_model(args)
    if change:
        change(model)
    callbacks = list(callbacks)
    extra = [] if stop is None else [_Stop(stop)]
    run.fit(
        model,
        train,
        steps_per_epoch=toy.STEPS,
        epochs=args.epochs,
        images_per_epoch=toy.IMAGES,
        validation_data=validation,
        callbacks=[*callbacks, *extra],
    )
    return run, model, callbacks


def _broken_off(argv, *, epoch, **kwargs):
    with pytest.raises(RuntimeError, match="killed"):
        _train(argv, stop=epoch, **kwargs)


def _plateau():
    return keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=10.0)


def _assert_same_model(one, two):
    pairs = zip(
        one.variables + list(one.optimizer.variables),
        two.variables + list(two.optimizer.variables),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.mark.parametrize("flags", [[], ["--mixed-precision"], ["--optimizer", "multi"]])
def test_resumed_equals_undisturbed(tmp_path, flags):
    def argv(name):
        return ["--out", str(tmp_path / name), "--epochs", "5", *flags]

    one, model, _ = _train(argv("whole"), callbacks=[_plateau()])
    # min_delta: nothing counts as progress, so the rate is halved after epochs 3 and 5.
    _broken_off(argv("b"), epoch=2, callbacks=[_plateau()])
    two, resumed, _ = _train([*argv("b"), "--resume"], callbacks=[_plateau()])
    _assert_same_model(model, resumed)
    for name, values in one.history.items():
        if name not in ("seconds", "images_per_second"):
            np.testing.assert_array_equal(values, two.history[name], err_msg=name)
    rates = [v for k, v in one.history.items() if k.startswith("learning_rate")]
    for rate in rates:
        np.testing.assert_allclose(np.array(rate) / rate[0], [1, 1, 1, 0.5, 0.5])
    if flags[-1:] == ["multi"]:
        head, body = one.history["learning_rate_head"], one.history["learning_rate_body"]
        np.testing.assert_allclose(head, 10 * np.array(body), rtol=1e-6)


def test_float16_loss_scale_is_kept(tmp_path):
    def scaled(model):
        inner = model.optimizer
        scale = keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=4)
        model.compile(scale, model.loss, metrics=["accuracy"])

    whole, part = (["--out", str(tmp_path / name), "--epochs", "3"] for name in "ab")
    _, model, _ = _train(whole, change=scaled)
    _broken_off(part, epoch=1, change=scaled)
    run, resumed, _ = _train([*part, "--resume"], change=scaled)
    _assert_same_model(model, resumed)
    assert float(resumed.optimizer.dynamic_scale) > resumed.optimizer.initial_scale
    assert run.history["learning_rate"] == pytest.approx([0.01] * 3)


def test_early_stopping_survives(tmp_path):
    def stopper():
        return keras.callbacks.EarlyStopping(
            "loss", patience=2, min_delta=10.0, restore_best_weights=True
        )

    def argv(name):
        return ["--out", str(tmp_path / name), "--epochs", "6"]

    one, model, _ = _train(argv("whole"), callbacks=[stopper()])
    assert one.epochs_done == 3  # the first is the best, two more are waited for
    _broken_off(argv("b"), epoch=2, callbacks=[stopper()])
    two, resumed, (callback,) = _train([*argv("b"), "--resume"], callbacks=[stopper()])
    assert (two.epochs_done, callback.best_epoch) == (3, 0)
    _assert_same_model(model, resumed)
    # Killed after that: straight to evaluation, with the weights of the best epoch.
    three, again, _ = _train([*argv("b"), "--resume"], callbacks=[stopper()])
    assert three.epochs_done == 3
    _assert_same_model(model, again)


def test_more_epochs_and_other_settings(tmp_path):
    argv = ["--out", str(tmp_path / "a"), "--epochs"]
    _train([*argv, "2"])
    run, _, _ = _train([*argv, "3", "--resume"])
    assert run.resumed and run.epochs_done == 3 and len(run.history["loss"]) == 3
    one, _, _ = _train(["--out", str(tmp_path / "b"), "--epochs", "3"])
    assert one.history["loss"] == run.history["loss"]
    with pytest.raises(InputError, match=r"--epochs was 3 and is now 2 \(it may only grow\)"):
        _train([*argv, "2", "--resume"])
    with pytest.raises(InputError, match=r"--optimizer was 'adam' and is now 'multi'"):
        _train([*argv, "3", "--resume", "--optimizer", "multi"])
    args = toy.parser().parse_args([*argv, "3", "--resume"])
    with pytest.raises(InputError, match="a run of toy, not of other"):
        Run.start(args, "other")
    with pytest.raises(InputError, match="class names was 'nothing' and is now"):
        Run.start(args, "toy", {"class_names": ["a"]})


def test_stages(tmp_path):
    """First the head, then everything, compiled anew; resumed in either stage."""

    def train(folder, *, resume=False, stop=None):
        args = toy.parser().parse_args(["--out", str(folder)] + ["--resume"] * resume)
        set_up(args)
        run = Run.start(args, "stages")
        data, _ = toy.make_data(args)
        model = toy.make_model(args)
        for epochs, trainable in ((2, False), (4, True)):
            model.get_layer("body").trainable = trainable
            model.compile(keras.optimizers.Adam(0.01), model.loss)
            run.fit(
                model,
                data,
                steps_per_epoch=toy.STEPS,
                epochs=epochs,
                images_per_epoch=toy.IMAGES,
                callbacks=[] if stop is None else [_Stop(stop)],
            )
        return run, model

    one, model = train(tmp_path / "whole")
    assert one.epochs_done == 4
    for stop in (2, 3):  # between the two stages, in the second
        folder = tmp_path / f"stop{stop}"
        with pytest.raises(RuntimeError, match="killed"):
            train(folder, stop=stop)
        two, resumed = train(folder, resume=True)
        assert two.history["loss"] == one.history["loss"]
        _assert_same_model(model, resumed)


def test_no_warnings_and_no_retracing(tmp_path, recwarn):
    traces = []

    class Counted(keras.Sequential):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    args = toy.parser().parse_args(["--out", str(tmp_path / "a"), "--epochs", "3"])
    set_up(args)
    run = Run.start(args, "toy")
    train, validation = toy.make_data(args)
    model = Counted(toy.make_model(args).layers)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.build((None, toy.SIZE, toy.SIZE + 2, 3))
    run.fit(
        model,
        train,
        steps_per_epoch=toy.STEPS,
        epochs=3,
        images_per_epoch=toy.IMAGES,
        validation_data=validation,
    )
    assert len(traces) == 1  # the last batch of an epoch is smaller
    assert not [str(w.message) for w in recwarn if issubclass(w.category, UserWarning)]


def test_nan_stops_with_advice_and_keeps_the_last_epoch(tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.get_layer("head").bias.assign([math.nan] * toy.CLASSES)

    with pytest.raises(InputError, match=r"became nan .*epoch 3.*--learning-rate.*after epoch 2"):
        _train(["--out", str(tmp_path / "a")], callbacks=[Break()])
    assert len(_history(tmp_path / "a")["loss"]) == 2
    kept = load_checkpoint(tmp_path / "a" / "checkpoint.npz")
    assert kept["epochs_done"] == 2 and np.isfinite(kept["history"]["loss"]).all()


def test_own_callbacks_add_figures_and_keep_state(tmp_path):
    class Counter(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = np.zeros(2, np.float32)

        def on_train_begin(self, logs=None):
            self.seen = np.zeros(2, np.float32)

        def on_epoch_end(self, epoch, logs=None):
            self.seen += [1, epoch]
            if epoch != 0:
                logs["val_map"] = 0.25 * epoch

        def get_state(self):
            return {"seen": self.seen}

        def set_state(self, state):
            self.seen = state["seen"]

    argv = ["--out", str(tmp_path / "a"), "--epochs", "4"]
    _broken_off(argv, epoch=2, callbacks=[Counter()])
    run, _, (counter,) = _train([*argv, "--resume"], callbacks=[Counter()])
    assert counter.seen.tolist() == [4, 6] and counter.seen.dtype == np.float32
    assert math.isnan(run.history["val_map"][0])
    assert run.history["val_map"][1:] == [0.25, 0.5, 0.75]
    assert _history(tmp_path / "a")["val_map"] == ["", "0.25", "0.5", "0.75"]


def test_finish(tmp_path, capsys):
    argv = ["--out", str(tmp_path / "a"), "--epochs", "2", "--batch-size", "8"]
    run, _, _ = _train(argv)
    metrics = run.finish(
        {"map": np.float32(0.5), "voc_map": math.nan, "by_class": {"dog": np.float64(0.25)}},
        next_command=["python", "scripts/detect.py", "my model"],
    )
    assert metrics["map"] == 0.5 and metrics["voc_map"] is None
    assert metrics["by_class"] == {"dog": 0.25} and metrics["images_per_second"] > 0
    record = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert record["map"] == 0.5 and record["voc_map"] is None
    assert record["settings"]["batch_size"] == 8 and record["settings"]["seed"] == 0
    assert record["versions"]["tensorflow"] == tf.__version__
    printed = capsys.readouterr().out
    assert "metrics.json" in printed and "checkpoint.npz" in printed
    assert "try next:\n  python scripts/detect.py 'my model'" in printed


def test_a_loop_of_ones_own(tmp_path):
    """Style transfer has no `fit`: variables, progress and history by hand."""

    def train(argv, stop=None):
        args = toy.parser().parse_args(argv)
        run = Run.start(args, "style")
        image = tf.Variable(tf.ones((2, 3)))
        progress = run.load_progress([image]) or {"step": 0, "content": []}
        history = run.history
        for step in range(progress["step"], 6):
            if step == stop:
                raise RuntimeError("killed")
            image.assign(image * 0.5)
            history.setdefault("content", []).append(float(tf.reduce_sum(image)))
            run.save_progress([image], {"step": step + 1}, done=step + 1, history=history)
        return run, image

    one, image = train(["--out", str(tmp_path / "a")])
    with pytest.raises(RuntimeError):
        train(["--out", str(tmp_path / "b")], stop=4)
    two, again = train(["--out", str(tmp_path / "b"), "--resume"])
    np.testing.assert_array_equal(image, again)
    assert one.history == two.history and len(two.history["content"]) == 6
    assert _history(tmp_path / "b") == _history(tmp_path / "a")


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    args = toy.parser().parse_args(["--out", str(tmp_path / "file")])
    with pytest.raises(InputError, match=r"--out .*file is no folder"):
        Run.start(args, "toy")
    # A start that failed before the first epoch leaves nothing that blocks the next one.
    args = toy.parser().parse_args(["--out", str(tmp_path / "a")])
    Run.start(args, "toy")
    run = Run.start(args, "toy")
    assert not run.can_resume
    holder = "import fcntl, os, sys, time; f = os.open(sys.argv[1], os.O_RDONLY);"
    holder += "fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    run.close()
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "a")], stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        with pytest.raises(InputError, match="in use: another process"):
            Run.start(args, "toy")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_model_must_be_ready(tmp_path):
    args = toy.parser().parse_args(["--out", str(tmp_path / "a")])
    run = Run.start(args, "toy")
    model = keras.Sequential([keras.layers.Dense(2)])
    figures = {"steps_per_epoch": 1, "epochs": 1, "images_per_epoch": 1}
    with pytest.raises(ValueError, match="not compiled"):
        run.fit(model, None, **figures)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="not built"):
        run.fit(model, None, **figures)


@pytest.mark.quick
def test_checkpoint_round_trip_and_misfit(tmp_path):
    path = tmp_path / "c.npz"
    variables = [
        keras.Variable(np.arange(6.0).reshape(2, 3), dtype="float32", name="kernel"),
        keras.Variable(np.array([1.5, 2.5]), dtype="bfloat16", name="half"),
        tf.Variable([3], dtype=tf.int64),
    ]
    state = {"epoch": 3, "nan": math.nan, "rate": 0.1, "best": [np.eye(2), None, "x"]}
    save_checkpoint(path, variables, state)
    wanted = [np.array(v.numpy()) for v in variables]
    for variable in variables:
        variable.assign(tf.zeros(variable.shape, variable.dtype))
    loaded = load_checkpoint(path, variables)
    for want, variable in zip(wanted, variables, strict=True):
        assert variable.numpy().dtype == want.dtype
        np.testing.assert_array_equal(variable.numpy(), want)
    assert loaded["epoch"] == 3 and math.isnan(loaded["nan"]) and loaded["rate"] == 0.1
    np.testing.assert_array_equal(loaded["best"][0], np.eye(2))
    assert loaded["best"][1:] == [None, "x"]
    assert load_checkpoint(path)["epoch"] == 3

    other = keras.Variable(np.zeros((3, 2)), dtype="float32", name="kernel")
    with pytest.raises(InputError, match=r"kernel \(3, 2\) float32 \(stored: kernel \(2, 3\)"):
        load_checkpoint(path, [other, *variables[1:]])
    with pytest.raises(InputError, match="holds 3 variables, this one has 2"):
        load_checkpoint(path, variables[:2])
    assert not other.numpy().any()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"c\.npz cannot be read as a checkpoint"):
        load_checkpoint(path)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "--epochs: expected a whole number of at least 1, got '0'"),
        (["--batch-size", "2.5"], "--batch-size: expected a whole number"),
        (["--learning-rate", "-1"], "--learning-rate: expected a number greater than 0"),
        (["--learning-rate", "nan"], "--learning-rate: expected a number greater than 0"),
        (["--seed", "x"], "--seed: expected a whole number of at least 0, got 'x'"),
        (["--devices", "cpu:0"], "--devices: expected auto, cpu, a number of GPUs"),
    ],
)
def test_bad_flags_are_named(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        toy.parser().parse_args(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.quick
def test_help_and_sizes(capsys):
    with pytest.raises(SystemExit):
        toy.parser().parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("(default: 4)", "on all devices together", "--skip-bad", "(default: toy)"):
        assert words in text
    parser = argparse.ArgumentParser()
    add_run_arguments(parser, epochs=1, batch_size=1, learning_rate=None, out="x", skip_bad=False)
    assert not hasattr(parser.parse_args([]), "skip_bad")
    assert image_size("256") == (256, 256) and image_size("320x480") == (320, 480)
    for bad in ("0", "3x", "1x2x3", "-4", "a"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected pixels"):
            image_size(bad)


@pytest.mark.quick
def test_run_main(capsys):
    def bad():
        raise InputError("labels.csv:3: x_max < x_min")

    def interrupted():
        raise KeyboardInterrupt

    def defect():
        raise ZeroDivisionError

    run_main(lambda: {"ok": 1})
    for main, code, text in ((bad, 2, "error: labels.csv:3"), (interrupted, 130, "interrupted")):
        with pytest.raises(SystemExit) as end:
            run_main(main)
        assert end.value.code == code
        assert text in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        run_main(defect)


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    class CtrlC(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations > toy.STEPS:
                raise KeyboardInterrupt

    out = str(tmp_path / "a")
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", out])
    with pytest.raises(SystemExit) as end:
        run_main(lambda: _train(["--out", out], callbacks=[CtrlC()]))
    assert end.value.code == 130
    error = capsys.readouterr().err
    assert "epoch 1 of 4" in error and f"python train.py --out {out} --resume" in error


@pytest.mark.quick
def test_tensorboard_only_where_it_is_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--tensorboard needs .*pip install tensorboard"):
        set_up(toy.parser().parse_args(["--tensorboard"]))


@pytest.mark.quick
def test_throughput_leaves_the_first_step_out():
    throughput = Throughput(images_per_step=10)
    throughput.set_params({"steps": 5})
    throughput.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    throughput.model.compile(keras.optimizers.SGD(0.5), "mse")
    for epoch, pauses in enumerate(([0.3, 0.02, 0.02, 0.02, 0.02], [0.02] * 5)):
        throughput.on_epoch_begin(epoch)
        for step, pause in enumerate(pauses):
            time.sleep(pause)
            throughput.on_train_batch_end(step, {"loss": 1.0})
        logs = {}
        time.sleep(0.2)  # validation and checkpoint
        throughput.on_epoch_end(epoch, logs)
        assert 150 < logs["images_per_second"] <= 500  # 10 images in .02 s, on a busy machine
        assert logs["learning_rate"] == 0.5


@pytest.mark.quick
def test_progress_on_a_terminal_and_in_a_file():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream in (Terminal(), io.StringIO()):
        progress = Progress(stream)
        progress.set_params({"steps": 2, "epochs": 12})
        progress.on_epoch_begin(2)
        progress._line._shown = -1e9
        progress.on_train_batch_end(0, {"loss": 1.5})
        progress.on_epoch_end(
            2, {"loss": 1.25, "seconds": 3.0, "images_per_second": 41.6, "learning_rate": 0.1}
        )
        text = stream.getvalue()
        assert "step 1/2  [==========..........]" in text
        last = text.replace("\r", "\n").splitlines()[-1].rstrip()
        assert last == "epoch  3/12  loss 1.25  3.0 s  42 images/s"
        assert ("\r" in text) == isinstance(stream, Terminal)


@pytest.mark.quick
def test_learning_rates_of_every_kind():
    sgd = keras.optimizers.SGD
    assert learning_rates(sgd(0.5)) == {"learning_rate": 0.5}
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([10], [0.25, 0.1])
    assert learning_rates(sgd(schedule)) == {"learning_rate": 0.25}
    assert learning_rates(keras.optimizers.LossScaleOptimizer(sgd(0.5))) == {"learning_rate": 0.5}
    groups = keras.optimizers.OptimizerMap(sgd(0.5, name="sgd"), {"x": sgd(0.25, name="sgd")})
    multi = keras.optimizers.MultiOptimizer(groups)
    assert sorted(learning_rates(multi).values()) == [0.25, 0.5]
