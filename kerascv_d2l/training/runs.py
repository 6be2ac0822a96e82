"""One training run: its folder, its checkpoint, its history and its results."""

import collections
import contextlib
import csv
import importlib.metadata
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path

import keras
import numpy as np

from kerascv_d2l import __version__
from kerascv_d2l.distribution import check_last_batch, synchronize_batch_norm
from kerascv_d2l.errors import InputError
from kerascv_d2l.files import plain, remove_leftovers, whole, write_json
from kerascv_d2l.plotting.curves import draw_history
from kerascv_d2l.training import startup
from kerascv_d2l.training.callbacks import AverageReplicas, Throughput
from kerascv_d2l.training.checkpoints import load_checkpoint, save_checkpoint
from kerascv_d2l.training.old_callbacks import Progress, StopOnNaN

_CHECKPOINT = "checkpoint.npz"
_SETTINGS = "settings.json"
_RESULTS = (_CHECKPOINT, "metrics.json", "model.keras", "saved_model")  # a folder with one is taken

# Flags that may change from one start to the next: they do not decide what is computed.
# (More or fewer devices change results by rounding only, unless batch norm is per device.)
# Nor do tiles or how often pictures are saved.
_FREE = {"out", "resume", "tensorboard", "devices", "epochs", "tile", "save_every"}

# Drawing the curves takes about .3 s: an epoch of 1 s is not made to wait for it every time.
_DRAWING_SHARE = 0.05

# What Keras' own callbacks count from epoch to epoch. Others take part by having `get_state()`,
# which returns what JSON or NumPy can hold, and `set_state(state)`.
_CALLBACK_STATE = {
    keras.callbacks.EarlyStopping: (
        "wait",
        "best",
        "best_epoch",
        "stopped_epoch",
        "best_weights",
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best", "epochs_since_last_save"),
}


class Run:
    """A training run in a folder of its own.

    Killed at any moment and started again with `--resume`, it goes on after
    the last finished epoch and ends as if it had never stopped, provided that
    batches depend only on seed and epoch.

    Attributes:
        out: `Path` of the folder.
        settings: dict, what the run was started with.
        resumed: whether it goes on with an earlier one.
        history: dict of name -> list with a value an epoch (NaN where an epoch
            has none).
        epochs_done: int, finished epochs.
        unit: str, what is counted: "epoch", or "step" where there are none.
    """

    def __init__(self, out, task, settings, epochs=None, unit="epoch"):
        """Make a run without looking at the folder; scripts call `Run.start`."""
        self.out = Path(out)
        self.task = task
        self.settings = plain(settings)
        self.resumed = False
        self.history = {}
        self.epochs_done = 0
        self.unit = unit
        self._epochs = epochs
        self._pending = None  # state read from the checkpoint and not yet put to use
        self._stage = 0  # number of the call of `fit`
        self._tensorboard = False
        self._lock = None
        self._drawn = -math.inf
        self._drawing_seconds = 0.0

    @classmethod
    def start(cls, args, task, settings=None, unit="epoch"):
        """Take the folder `args.out` for a run, or go on with the run that is there.

        Args:
            args: namespace with the flags of `add_run_arguments`, or those of
                `add_common_arguments` and one that says how long: `steps` for
                the unit "step".
            task: name of the task, such as `"train_ssd"`.
            settings: what else decides the result and is no flag (class names,
                number of images …), to be compared on `--resume` and written to
                `metrics.json`.
            unit: what is counted, "epoch" or "step".

        Returns:
            `Run`.

        Raises:
            InputError: if the folder holds a run and `--resume` is not given,
                or the run there had other settings, or another process is
                writing to it.
        """
        flags = {k: v for k, v in vars(args).items() if not callable(v)}
        length = flags[f"{unit}s"]
        run = cls(args.out, task, {**flags, **(settings or {})}, epochs=length, unit=unit)
        run._tensorboard = flags.get("tensorboard", False)
        if startup.current_run:
            startup.current_run.close()  # one at a time in a process
        run._take_folder()
        try:
            if args.resume:
                run._resume(set(flags))
            else:
                run._refuse_taken_folder()
            write_json(run.out / _SETTINGS, {"task": task, "settings": run.settings})
        except BaseException:
            run.close()
            raise
        startup.current_run = run
        return run

    def path(self, name):
        """Path of a file or folder of this run; write it through `files.whole`."""
        return self.out / name

    @property
    def can_resume(self):
        """Whether something would be left to go on with if the process ended now."""
        return (self.out / _CHECKPOINT).exists()

    @property
    def progress(self):
        """How far the run has come, in words."""
        of = f" of {self._epochs}" if self._epochs else ""
        return f"{self.unit} {self.epochs_done}{of} in {self.out}"

    @property
    def images_per_second(self):
        """Training images a second over all epochs that were measured, or NaN."""
        rates = np.array(self.history.get("images_per_second", []), float)
        rates = rates[np.isfinite(rates) & (rates > 0)]
        # Every epoch has the same number of images: the mean of rates is the harmonic one.
        return float(1 / np.mean(1 / rates)) if rates.size else math.nan

    def fit(
        self,
        model,
        make_train_dataset,
        *,
        steps_per_epoch,
        epochs,
        images_per_epoch,
        validation_data=None,
        validation_steps=None,
        validation_freq=1,
        callbacks=(),
    ):
        """Train up to epoch `epochs`, with a checkpoint after each epoch.

        May be called more than once, to train in stages (first the head, then
        the rest, compiled anew): `epochs` counts from the start of the run, and
        a resumed run skips the stages that are behind it.

        Args:
            model: compiled and built `keras.Model`.
            make_train_dataset: `make_train_dataset(initial_epoch)` returns an
                endless `tf.data.Dataset` of batches that starts with that epoch
                (0-based). The batches of an epoch must depend only on its
                number, not on the epochs drawn before: shuffle and augment by
                stateless draws from (seed, epoch).
            steps_per_epoch: batches in an epoch.
            epochs: number of the last epoch to train, counted from 1.
            images_per_epoch: images in these batches, to measure throughput.
            validation_data: finite `tf.data.Dataset`, or `None`.
            validation_steps: batches of it to use; default: all.
            validation_freq: epochs from one validation to the next, or a list of
                those (counted from 1) after which there is one.
            callbacks: further Keras callbacks. What they add to the logs of an
                epoch is in history and checkpoint.

        Returns:
            `history`, over all epochs of the run.

        Raises:
            DivergenceError: if the loss becomes NaN or infinite.
            InputError: if the checkpoint belongs to another model, or the last
                batch is too small for the devices.
            ValueError: if the model is not compiled or not built.
        """
        self._stage += 1
        if self._pending and self._pending["stage"] > self._stage:
            return self.history
        variables = _all_variables(model)
        if self.settings.get("sync_batch_norm"):
            synchronize_batch_norm(model)
        if "batch_size" in self.settings:
            check_last_batch(model, images_per_epoch, steps_per_epoch, self.settings["batch_size"])
        state = None
        if self._pending:
            with model.distribute_strategy.scope():
                state = load_checkpoint(self.out / _CHECKPOINT, variables)
            self._pending = None
        initial_epoch = self.epochs_done
        stopped = state is not None and state["stopped"]
        if stopped:
            print(f"training had stopped early, after epoch {initial_epoch}", flush=True)
        callbacks = list(callbacks)
        if self._tensorboard:
            log_dir = str(self.out / "tensorboard")
            callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
        # Without an epoch left, `fit` still runs what callbacks do at the end of training.
        model.fit(
            make_train_dataset(initial_epoch),
            epochs=initial_epoch if stopped else max(initial_epoch, epochs),
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation_data,
            validation_steps=validation_steps,
            validation_freq=validation_freq,
            shuffle=False,  # the data set does it; True only makes Keras warn
            verbose=0,
            callbacks=[
                StopOnNaN(keeps=self._what_is_kept),
                AverageReplicas(),
                Throughput(images_per_epoch / steps_per_epoch),
                *callbacks,
                _Keeper(self, variables, callbacks, state),
                Progress(),
            ],
        )
        self._write_history(draw=True)
        return self.history

    def save_progress(self, variables, progress, *, done=None, history=None):
        """Write a checkpoint from a training loop that is not `fit`.

        Args:
            variables: list of variables.
            progress: what else the loop needs, as plain values and NumPy arrays.
            done: steps or epochs done so far, for messages.
            history: dict of name -> list; written to `history.csv` and `.png`.
        """
        self.epochs_done = self.epochs_done if done is None else int(done)
        self.history = self.history if history is None else history
        state = self._state(stopped=False)
        save_checkpoint(self.out / _CHECKPOINT, variables, {**state, "progress": progress})
        if self.history:
            self._write_history(draw=False)

    def load_progress(self, variables):
        """Put the values of the last `save_progress` into `variables`.

        Returns:
            Its `progress`, or `None` if the run starts from the beginning.
        """
        if not self._pending:
            return None
        self._pending = None
        return load_checkpoint(self.out / _CHECKPOINT, variables)["progress"]

    def save_model(self, model):
        """Write a Keras model as `model.keras`, as a whole or not at all."""
        with whole(self.path("model.keras")) as path:
            model.save(path)

    def finish(self, metrics, *, next_command=None):
        """Write `metrics.json`, and say what was written where and what to do next.

        Args:
            metrics: dict of names and values. `images_per_second` is added where
                it was measured.
            next_command: command to try next, text or list of arguments.

        Returns:
            The metrics as plain Python values (NaN as `None`): what `main`
            returns.
        """
        if "images_per_second" in self.history:
            metrics = {"images_per_second": self.images_per_second, **metrics}
        metrics = plain(metrics)
        if self.history:
            self._write_history(draw=True)
        record = {**metrics, "task": self.task, f"{self.unit}s": self.epochs_done}
        if "seconds" in self.history:
            seconds = np.nansum(np.array(self.history["seconds"], float))
            record["training_seconds"] = round(float(seconds), 1)
        record = {
            **record,
            "settings": self.settings,
            "versions": _versions(),
        }
        write_json(self.out / "metrics.json", record)
        for name, value in metrics.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                print(f"  {name:<20} {value:.4g}")
        print("written:")
        for path in sorted(self.out.iterdir()):
            if not path.name.startswith("."):
                print(f"  {path}{'/' if path.is_dir() else ''}  {_size(path)}")
        if next_command:
            text = next_command if isinstance(next_command, str) else shlex.join(next_command)
            print(f"try next:\n  {text}")
        sys.stdout.flush()
        self.close()
        return metrics

    def close(self):
        """Let go of the folder: another process may train into it."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = None

    def _take_folder(self):
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with whole(self.out / ".try") as probe:
                probe.touch()
            (self.out / ".try").unlink()
        except OSError as error:
            raise InputError(
                f"--out {self.out} is no folder that can be written to ({error.strerror}): "
                "give another"
            ) from error
        self._lock = _lock(self.out)
        remove_leftovers(self.out)

    def _refuse_taken_folder(self):
        if taken := [name for name in _RESULTS if (self.out / name).exists()]:
            raise InputError(
                f"--out {self.out} already holds a run ({', '.join(taken)}): go on with it by "
                "adding --resume, give another --out, or delete the folder"
            )

    def _resume(self, flags):
        if not self.can_resume:
            print(f"nothing to resume in {self.out}: starting from the beginning", flush=True)
            return
        state = load_checkpoint(self.out / _CHECKPOINT)
        if state["task"] != self.task:
            raise InputError(
                f"--resume: {self.out} holds a run of {state['task']}, not of {self.task}: "
                "give another --out"
            )
        _compare_settings(state["settings"], self.settings, flags)
        self.history = state["history"]
        self.epochs_done = state["epochs_done"]
        self.resumed = True
        self._pending = state
        print(f"resuming after {self.progress}", flush=True)

    def _what_is_kept(self):
        if not self.can_resume:
            return f"No {self.unit} was finished."
        return f"The state after {self.progress} is kept."

    def _state(self, stopped):
        return {
            "task": self.task,
            "settings": self.settings,
            "stage": self._stage,
            "epochs_done": self.epochs_done,
            "stopped": stopped,
            "history": self.history,
        }

    def _add_epoch(self, epoch, logs):
        """Append the figures of 0-based `epoch`."""
        for name in {**self.history, **logs}:  # in the order in which names came up
            values = self.history.setdefault(name, [])
            values.extend([math.nan] * (epoch - len(values)))
            values.append(float(logs.get(name, math.nan)))
        self.epochs_done = epoch + 1

    def _write_history(self, draw):
        names = list(self.history)
        with whole(self.out / "history.csv") as path, open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([self.unit, *names])
            for i, row in enumerate(zip(*self.history.values(), strict=True)):
                cells = ["" if math.isnan(value) else repr(float(value)) for value in row]
                writer.writerow([i + 1, *cells])
        start = time.perf_counter()
        if draw or self._drawing_seconds < _DRAWING_SHARE * (start - self._drawn):
            draw_history(self.out / "history.png", self.history, self.unit)
            self._drawn = time.perf_counter()
            self._drawing_seconds = self._drawn - start


class _Keeper(keras.callbacks.Callback):
    """Write checkpoint and history after each epoch. Comes after the callbacks it keeps."""

    def __init__(self, run, variables, callbacks, state):
        super().__init__()
        self._run = run
        self._variables = variables
        self._callbacks = callbacks
        self._stored = state
        self._start = 0.0

    def on_train_begin(self, logs=None):
        # The other callbacks have just reset themselves.
        if self._stored:
            _set_callback_states(self._callbacks, self._stored["callbacks"])

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        run = self._run
        logs["seconds"] = time.perf_counter() - self._start
        run._add_epoch(epoch, logs)
        state = run._state(stopped=bool(self.model.stop_training))
        state["callbacks"] = _get_callback_states(self._callbacks)
        save_checkpoint(run.path(_CHECKPOINT), self._variables, state)
        run._write_history(draw=False)


def _all_variables(model):
    """List everything that training changes: weights, seeds of random layers, optimizer state.

    Metrics are not among them: they start anew with every epoch.
    """
    if not model.built or not model.compiled:
        raise ValueError(
            f"Run.fit needs a compiled and built model; {model.name} is "
            f"{'not built: call it on a batch first' if model.compiled else 'not compiled'}"
        )
    with model.distribute_strategy.scope():
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    return model.variables + list(model.optimizer.variables)


def _state_names(callback):
    return next((n for c, n in _CALLBACK_STATE.items() if isinstance(callback, c)), ())


def _keyed(callbacks):
    """Name callbacks by class and number, as in `EarlyStopping 0`."""
    seen = collections.Counter()
    for callback in callbacks:
        name = type(callback).__name__
        yield f"{name} {seen[name]}", callback
        seen[name] += 1


def _get_callback_states(callbacks):
    states = {}
    for key, callback in _keyed(callbacks):
        if hasattr(callback, "get_state"):
            states[key] = _as_numpy(callback.get_state())
        else:
            state = {name: getattr(callback, name) for name in _state_names(callback)}
            states[key] = _as_numpy(state)
    return states


def _set_callback_states(callbacks, states):
    for key, callback in _keyed(callbacks):
        if key not in states:
            continue  # a new one: it starts to count now
        if hasattr(callback, "set_state"):
            callback.set_state(states[key])
        else:
            for name, value in states[key].items():
                setattr(callback, name, value)


def _as_numpy(value):
    if isinstance(value, dict):
        return {key: _as_numpy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_numpy(item) for item in value]
    return value.numpy() if hasattr(value, "numpy") else value


def _compare_settings(stored, present, flags):
    """Refuse to go on with other settings than a run began with; `--epochs` may grow."""
    different = []
    for name in {**stored, **present}:
        if name in _FREE or stored.get(name) == present.get(name):
            continue
        label = f"--{name.replace('_', '-')}" if name in flags else name.replace("_", " ")
        was, now = stored.get(name, "nothing"), present.get(name, "nothing")
        different.append(f"{label} was {was!r} and is now {now!r}")
    was, now = stored.get("epochs"), present.get("epochs")
    if was is not None and now is not None and now < was:
        different.append(f"--epochs was {was} and is now {now} (it may only grow)")
    if different:
        raise InputError(
            f"--resume: the run was started with other settings: {'; '.join(different)}. "
            "Give the same ones, or start a new run in another --out"
        )


def _lock(folder):
    """Hold a lock on `folder` until it is closed or the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"--out {folder} is in use: another process is training into it. Wait for it, stop "
            "it, or give another --out"
        ) from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def _versions():
    names = ("tensorflow", "keras", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "kerascv_d2l": __version__, **versions}


def _size(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = float(sum(p.stat().st_size for p in files))
    if size < 1000:
        return f"{size:.0f} bytes"
    exponent = min(int(math.log10(size) // 3), 3)
    return f"{size / 1000**exponent:.1f} {('kB', 'MB', 'GB')[exponent - 1]}"
