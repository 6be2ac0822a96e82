"""A training run: its folder, checkpoints, history and results, as a callback beside `fit`.

    run = Run("runs/mine", {"batch_size": 32, "epochs": 10}, task="toy", resume=True)
    run.watch(model, *callbacks)
    model.fit(
        data, epochs=10, initial_epoch=run.initial_epoch, steps_per_epoch=…,
        callbacks=[*callbacks, run], verbose=run.verbose,
    )
    run.save_model(model)
    run.finish({"accuracy": …})

Killed at any moment and started again, it goes on after the last finished epoch and ends with the
same bits, provided that the batches of an epoch depend only on seed and epoch.
"""

import contextlib
import csv
import functools
import importlib.metadata
import json
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
from kerascv_d2l.data.batches import batches, names_of_batch, steps_per_epoch
from kerascv_d2l.errors import InputError, WriteError, first_of
from kerascv_d2l.files import (
    check_for_tensorflow,
    make_folder,
    plain,
    remove_leftovers,
    scratch_folder,
    whole,
    write_json,
    writing,
)
from kerascv_d2l.plotting.curves import draw_history
from kerascv_d2l.training import cluster
from kerascv_d2l.training.callbacks import AverageReplicas, Throughput
from kerascv_d2l.training.checkpoint import (
    Checkpoint,
    has_checkpoint,
    is_damaged,
    recover_checkpoint,
    remove_remains,
    save_checkpoint,
)
from kerascv_d2l.training.devices import synchronize_batch_norm
from kerascv_d2l.training.divergence import explain_by_batches
from kerascv_d2l.training.optimizers import is_scheduled, rate_logs
from kerascv_d2l.training.rehearsal import EVALUATION_SHARE, TRACED_LATER, peak_memory, rehearse
from kerascv_d2l.training.run_folder import (
    CHECKPOINT,
    METRICS,
    SETTINGS,
    lock_folder,
    others_in,
    results_in,
    size_in_words,
)
from kerascv_d2l.training.run_settings import differences
from kerascv_d2l.training.tracked import (
    collect,
    flat,
    get_callback_states,
    is_callback,
    scope_of,
    set_callback_states,
)

_CHECK_LOSS = 0.1  # seconds between two looks at the loss: each waits for the device
# Drawing the curves takes about 0.3 s: at most this share of the time is spent on it.
_DRAWING_SHARE = 0.05

_MORE_EPOCHS = (
    "the schedule of the learning rate was made for the epochs that the run began with, and with "
    "more of them the first ones would have had other rates; only a constant rate can go on"
)


class DivergenceError(InputError):
    """A loss became NaN or infinite."""


class Run(keras.callbacks.Callback):
    """A training run in a folder of its own; the last callback of `fit`.

    After each epoch it writes a checkpoint, `history.csv` and `history.png`. To the logs it adds
    the learning rates, `seconds` and `images_per_second`. It raises `DivergenceError` when a
    loss is NaN or infinite, before anything is written of it, and `InputError` when the disk is
    full. Several devices agree on their batch-norm statistics before they validate.

    Attributes:
        out: `Path` of the folder. With several machines, workers other than the first have one
            of their own in it.
        settings: dict, what the run was started with.
        resumed: bool, whether it goes on with an earlier one.
        history: dict of name -> list with a value an epoch (NaN where an epoch has none).
        epochs_done: int, finished epochs, or steps.
        progress: what `save` was given, where a run is resumed that uses it; else None.
        unit: str, what is counted: `"epoch"`, or `"step"` where there are none.
        explain_divergence: None, or a function of an epoch and a range of its steps, ints from
            0, that says what is wrong with these batches, as text, or None if they are fine:
            `batches` sets it, and for other data `explain_by_batches` makes one.
    """

    _lock = None
    _stored = None  # `Checkpoint` whose variables are not yet restored
    _callback_states = None  # of the checkpoint, until they are restored
    _stopped_at = None  # first epoch of `fit` with nothing left, if it stopped early
    _more_epochs = False  # than the run was started with
    _saved = 0  # epochs or steps in the checkpoint
    _watched = _callbacks = ()
    _epoch, _began, _looked, _good = 0, 0.0, 0.0, 0
    _drawn, _drawing_seconds, _drawn_epochs = -math.inf, 0.0, None

    def __init__(
        self,
        out,
        settings,
        *,
        task,
        resume=False,
        free=(),
        epochs=None,
        unit="epoch",
        strategy=None,
    ):
        """Take a folder for a run, or go on with the run that is there.

        Args:
            out: folder, made if missing.
            settings: dict of all that decides the result (hyperparameters, class names, which
                images): written to the folder and compared when resumed. `batch_size` also
                serves to measure throughput, `sync_batch_norm` makes `watch` call
                `synchronize_batch_norm`.
            task: str, the name of what is trained, such as `"train_detector"`.
            resume: bool, go on with the run in `out`, or start where there is none.
            free: names of settings that may differ when resumed, besides `FREE`.
            epochs: int, epochs (or steps) in all; default: that setting.
            unit: `"epoch"` or `"step"`.
            strategy: `tf.distribute.Strategy`; needed for several machines only.

        Raises:
            InputError: if the folder holds a run and `resume` is False or its checkpoint is lost,
                or the run there had other settings, or the folder cannot be written to.
            FolderInUse: if another process is writing to it.
        """
        super().__init__()
        clustered = strategy is not None and strategy.cluster_resolver is not None
        index, workers = cluster.read_cluster() if clustered else (0, [])
        self.out = Path(out) if index == 0 else Path(out) / f"worker-{index}"
        self.task, self.unit = task, unit
        self.settings = plain(settings)
        self.resumed = False
        self._outdated = False  # whether the figures in the folder are of fewer epochs
        self.history, self.epochs_done, self.progress = {}, 0, None
        self.explain_divergence = None
        self._epochs = self.settings.get(f"{unit}s") if epochs is None else epochs
        self._free = free
        self._first_worker, self._strategy = index == 0, strategy if len(workers) > 1 else None
        self._variables, self._optimizers, self._rates = [], {}, {}
        images = self.settings.get("batch_size")
        self._parts = [AverageReplicas()] + ([Throughput(images)] if images else [])
        check_for_tensorflow(self.out)
        make_folder(self.out)
        self._lock = lock_folder(self.out)
        remove_leftovers(self.out)
        try:
            self._check_folder(resume)
            self._go_on(resume)
            with writing(self.out / SETTINGS):
                write_json(self.out / SETTINGS, {"task": task, "settings": self.settings})
        except BaseException:
            self.close()
            raise

    # The folder

    def path(self, name):
        """Path of a file or folder of this run; write it by `writing` or `drawing`."""
        return self.out / name

    @contextlib.contextmanager
    def writing(self, name):
        """Give a path to write a file or folder of this run to; it appears when it is whole.

        Args:
            name: str, its name in the folder.

        Yields:
            `Path`, of a temporary place.

        Raises:
            InputError: if it cannot be written, as on a full disk. It says what of the run is
                kept, and how to go on.
        """
        with self._saving(name), whole(self.path(name)) as path:
            yield path

    @contextlib.contextmanager
    def drawing(self, name):
        """Give the path of a drawing of this run; one that fails is a warning, not an error.

        What was computed must not be lost for a drawing. Save models before you draw.

        Args:
            name: str, file name in the folder.

        Yields:
            `Path`.
        """
        try:
            yield self.path(name)
        except Exception as error:
            print(
                f"warning: {name} could not be drawn ({type(error).__name__}: {error})", flush=True
            )

    def close(self):
        """Release the folder: another process may use it."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = None

    @contextlib.contextmanager
    def _saving(self, name):
        """Say, where `name` cannot be written, what of the run is kept and how to go on."""
        try:
            with writing(self.path(name)):
                yield
        except WriteError as error:
            self.epochs_done = self._saved
            remove_remains(self.out / CHECKPOINT)
            how = "start again"
            if self.can_resume:
                how = "go on with --resume (resume=True)"
            raise InputError(
                f"{error}; {self._what_is_kept()}: once there is room, {how}"
            ) from error

    def _what_is_kept(self):
        if self.can_resume:
            return f"the state after {self.where} is kept"
        return f"no {self.unit} was finished"

    def _check_folder(self, resume):
        """Refuse a folder with anything that a run would write over and cannot go on with."""
        folder = self.out / CHECKPOINT
        with writing(folder):
            recover_checkpoint(folder)
        if self._first_worker and not has_checkpoint(folder):
            self._check_for_lost_checkpoint(folder)
        remove_remains(folder)
        taken = results_in(self.out)
        if taken and self._first_worker and not resume:
            raise InputError(
                f"out {self.out} already holds a run ({', '.join(taken)}): go on with it by "
                "--resume (resume=True), give another out, or delete the folder"
            )
        if not taken and (others := others_in(self.out)):
            raise InputError(
                f"out {self.out} has files that are of no run, and that one might write over "
                f"({first_of(others)}): give a new folder"
            )

    def _check_for_lost_checkpoint(self, folder):
        """Refuse to start anew where there was a checkpoint, as results or its remains show.

        What a killed process leaves of its first checkpoint shows none.
        """
        taken = [name for name in results_in(self.out) if name != CHECKPOINT or is_damaged(folder)]
        if taken:
            raise InputError(
                f"out {self.out} already holds a run ({', '.join(taken)}), but {folder} holds "
                "no whole checkpoint to go on from: copy it again if there is a copy; to start "
                "from the beginning, give another out or delete the run's folder"
            )

    # Resuming

    def _go_on(self, resume):
        """Read the checkpoint, if it is to be resumed and there is one."""
        folder = self.out / CHECKPOINT if resume and self._first_worker else None
        if self._strategy is not None:
            self._compare_workers()
        stored = Checkpoint(folder, self._strategy)
        if stored.state is None:
            if resume and self._first_worker:
                print(f"nothing to resume in {self.out}: starting from the beginning", flush=True)
            return
        state = stored.state
        if state["task"] != self.task:
            raise InputError(
                f"resume: {self.out} holds a run of {state['task']}, not of {self.task}: give "
                "another out"
            )
        self._compare(state["settings"])
        self.history, self.epochs_done = state["history"], state["epochs_done"]
        self.progress, self._saved = state["progress"], state["epochs_done"]
        self.resumed, self._stored = True, stored
        if state["stopped_at"] is not None and not self._more_patience(state["settings"]):
            last = state["stopped_at"] >= (state["settings"].get(f"{self.unit}s") or math.inf)
            self._stopped_at = self._epochs if last else state["stopped_at"]
            print(f"training stopped early, after {self.unit} {self.epochs_done}", flush=True)
        elif self._epochs and self.epochs_done < self._epochs:
            self._outdated = True
        if self._first_worker:
            print(f"resuming after {self.where}", flush=True)

    def _more_patience(self, stored):
        """Whether a run that stopped for want of better epochs is to wait longer now."""
        was, now = stored.get("patience"), self.settings.get("patience")
        return was is not None and (now is None or now > was)

    def _compare(self, stored):
        """Refuse to go on with other settings than a run began with; `epochs` may grow."""
        length = f"{self.unit}s"
        stored, present = {**stored}, {**self.settings}
        was, now = stored.get(length), present.get(length)
        if self.unit == "epoch" and was is not None and now is not None and now > was:
            self._more_epochs = True
            if (present.get("schedule") or "constant") == "constant":
                present[length] = was
        different = differences(stored, present, self._free)
        if not different:
            return
        hint = ""
        if self._more_epochs and stored.get(length) != present[length]:
            hint = f" ({_MORE_EPOCHS})"
        if any(name == "images" for name, *_ in different):
            hint += " (images: how many, and a number that changes with their names and labels)"
        changes = "; ".join(f"{name} was {was} and is now {now}" for name, was, now in different)
        raise InputError(
            f"resume: the run was started with other settings: {changes}{hint}. "
            "Give the same ones, or start a new run in another folder"
        )

    def _compare_workers(self):
        """Refuse to train with other settings than worker 0."""
        text = cluster.share_bytes(self._strategy, json.dumps(self.settings).encode())
        for name, first, here in differences(json.loads(text), self.settings, self._free):
            raise InputError(
                f"{name} is {here} here, and {first} for worker 0: start all workers with the same "
                "settings and data"
            )

    @property
    def can_resume(self):
        """Whether something would be left to go on with if the process ended now."""
        if not self._first_worker:
            return self.epochs_done > 0
        return has_checkpoint(self.out / CHECKPOINT)

    @property
    def where(self):
        """How far the run has come, in words."""
        # L-BFGS may take a step more than it was given.
        done = min(self.epochs_done, self._epochs or self.epochs_done)
        of = f" of {self._epochs}" if self._epochs else ""
        return f"{self.unit} {done}{of} in {self.out}"

    @property
    def initial_epoch(self):
        """int for `fit`: the first epoch to train, 0-based.

        Where training stopped early it lies behind the last one, so that `fit` does nothing but
        what callbacks do at its end.
        """
        return self.epochs_done if self._stopped_at is None else self._stopped_at

    @property
    def verbose(self):
        """How `fit` shows progress: a bar on a terminal or in a notebook, else a line an epoch."""
        return "auto" if sys.stdout.isatty() or "ipykernel" in sys.modules else 2

    def watch(self, *trackables):
        """Say what belongs to the checkpoint; a resumed run gets its values back.

        Call it when everything is compiled and built, and before the data is made, which may
        depend on `initial_epoch`. Metrics do not belong to it: they start anew in each epoch.

        A training in stages watches and fits each of them:

            for epochs, layers in stages:
                if run.initial_epoch > epochs:
                    continue  # a resumed run has this stage behind it
                model.compile(…)
                run.watch(model)
                model.fit(…, epochs=epochs, initial_epoch=run.initial_epoch, callbacks=[run])

        Args:
            *trackables: models, with all optimizers that are their attributes; optimizers;
                variables; callbacks with a state, such as `EarlyStopping`; lists of these. They
                replace those of an earlier call.

        Raises:
            InputError: if the checkpoint belongs to another model, or holds fewer epochs than
                there are now and a schedule of the learning rate.
            ValueError: if a model or an optimizer is not built, or it is none of these.
        """
        self._watched = trackables
        for model in (item for item in flat(trackables) if isinstance(item, keras.Model)):
            if self._strategy is None and model.distribute_strategy.cluster_resolver is not None:
                raise ValueError("with several machines, Run needs strategy=…")
            if self.settings.get("sync_batch_norm"):
                synchronize_batch_norm(model)
        self._callbacks = [t for t in flat(trackables) if is_callback(t)]
        self._variables, self._optimizers = collect(trackables)
        if self._more_epochs and any(map(is_scheduled, self._optimizers.values())):
            raise InputError(f"resume: epochs grew to {self._epochs}: {_MORE_EPOCHS}")
        if self._stored is not None:
            with scope_of(trackables, self._strategy):
                self._stored.restore(self._variables)
            self._callback_states = self._stored.state["callbacks"]
            self._stored = None
            if self._outdated:
                (self.out / METRICS).unlink(missing_ok=True)

    def batches(self, split, image_size, batch_size, *, seed=0, last=None, **options):
        """Make the training batches of this run, from where it stands.

        If the loss becomes NaN, they are looked at before the learning rate is blamed, and the
        image is named whose pixels or labels are at fault.

        Args:
            split: as for `data.batches`, and so are the others.
            image_size: as above.
            batch_size: as above.
            seed: as above.
            last: None, or a pair: dict of arguments that change in the last epochs, and how many
                epochs these are.
            **options: as above.

        Returns:
            `tf.data.Dataset`, as `data.batches` with `training=True`.
        """
        changes, changed = ({}, 0) if last is None else last
        first_changed = self._epochs - changed if changed else math.inf

        def make(initial_epoch, **more):
            settings = {"image_size": image_size, "batch_size": batch_size, "seed": seed, **options}
            settings |= changes if initial_epoch >= first_changed else {}
            settings |= {"training": True, "initial_epoch": initial_epoch, **more}
            return batches(split, **settings)

        names = self.settings.get("class_names")
        self.explain_divergence = explain_by_batches(
            functools.partial(make, cache=False),
            num_classes=len(names) if names else None,
            names_of=functools.partial(names_of_batch, split, batch_size, seed),
        )
        start = self.initial_epoch
        if start >= first_changed or not changed:
            return make(start)
        steps = steps_per_epoch(split, batch_size) * (first_changed - start)
        decoded = {}
        first = make(start, decoded=decoded).take(steps)
        return first.concatenate(make(first_changed, decoded=decoded))

    def announce(self, model, batches, steps_per_epoch, evaluated=0):
        """Train a few steps that are undone, and print how long the rest of the run will take.

        Call it after `watch`. With several machines it does nothing.

        Args:
            model: compiled `keras.Model`.
            batches: of training, as for `fit`.
            steps_per_epoch: int.
            evaluated: int, images in all measurements of the run together.
        """
        steps = (self._epochs - self.initial_epoch) * steps_per_epoch
        if self._strategy is not None or steps <= 0:
            return
        step, first = rehearse(model, batches, self._variables)
        images = self.settings["batch_size"]
        seconds = step * (steps + EVALUATION_SHARE * evaluated / images) + TRACED_LATER * first
        seconds += (self._epochs - self.initial_epoch) * self._checkpoint_seconds(model)
        memory = peak_memory()
        text = f"expected: {_duration(seconds)} for {steps} updates of {images} images"
        text += f", {memory / 1e9:.1f} GB of memory" if memory else ""
        print(f"{text}. Less with fewer epochs or a smaller image_size", flush=True)

    def _checkpoint_seconds(self, model):
        """Write a checkpoint to a place where nobody looks, with best weights, for the clock."""
        with writing(self.out), scratch_folder(self.out) as folder:
            start = time.perf_counter()
            weights = [np.array(weight) for weight in model.get_weights()]
            save_checkpoint(folder, self._variables, {"weights": weights})
            return time.perf_counter() - start

    def save(self, done, progress=None, history=None):
        """Write a checkpoint from a training loop that is not `fit`.

        Args:
            done: int, steps or epochs done so far.
            progress: what else the loop needs, as plain values and NumPy arrays: `progress` of
                the resumed run.
            history: dict of name -> list; written to `history.csv` and `.png`.
        """
        self.epochs_done, self.progress = int(done), None
        self.history = self.history if history is None else history
        self._write(progress)

    def _write(self, progress=None, stopped_at=None):
        state = {
            "task": self.task,
            "settings": self.settings,
            "epochs_done": self.epochs_done,
            "stopped_at": stopped_at,
            "history": self.history,
            "callbacks": get_callback_states(self._callbacks),
            "progress": progress,
        }
        if self._first_worker:
            with self._saving(CHECKPOINT):
                save_checkpoint(self.out / CHECKPOINT, self._variables, state)
        self._saved = self.epochs_done
        if self.history:
            self._write_history(draw=False)

    # Hooks of `fit`

    def set_model(self, model):
        super().set_model(model)
        for part in self._parts:
            part.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        for part in self._parts:
            part.set_params(params)

    def on_train_begin(self, logs=None):
        variables, _ = collect(self._watched)
        known = {id(v) for v in self._variables}
        if [id(v) for v in variables] != [id(v) for v in self._variables] or any(
            id(v) not in known for v in self.model.variables
        ):
            raise ValueError(
                f"run.watch(model) is missing: {self.model.name} was not watched, or was compiled "
                "or frozen after it"
            )
        self._check_weights()
        # The other callbacks, which come before this one, have just reset themselves.
        if self._callback_states is not None:
            set_callback_states(self._callbacks, self._callback_states)
            self._callback_states = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._began, self._rates, self._good = epoch, time.perf_counter(), {}, 0
        for part in self._parts:
            part.on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        for part in self._parts:
            part.on_train_batch_end(batch, logs)
        # Losses in the logs are means since the epoch began: once NaN, they stay NaN.
        now = time.perf_counter()
        if now - self._looked >= _CHECK_LOSS:
            self._check_losses(logs, f"by step {batch + 1} of epoch {self._epoch + 1}", batch + 1)
            self._looked, self._good = time.perf_counter(), batch + 1
        if batch + 1 == self.params.get("steps"):
            # Before the other callbacks change them for the next epoch.
            self._rates = rate_logs(self._optimizers)

    def on_test_begin(self, logs=None):
        for part in self._parts:
            part.on_test_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._check_losses(logs, f"in epoch {epoch + 1}", self.params.get("steps") or 2**31)
        for part in self._parts:
            part.on_epoch_end(epoch, logs)
        logs.update(self._rates or rate_logs(self._optimizers))
        logs["seconds"] = time.perf_counter() - self._began
        for name in {**self.history, **logs}:  # in the order in which names came up
            values = self.history.setdefault(name, [])
            values.extend([math.nan] * (epoch - len(values)))
            values.append(float(logs.get(name, math.nan)))
        for name in [name for name, value in logs.items() if math.isnan(value)]:
            del logs[name]  # not measured in this epoch: Keras, which comes next, need not print it
        self.epochs_done = epoch + 1
        self._write(stopped_at=self.params["epochs"] if self.model.stop_training else None)

    def on_train_end(self, logs=None):
        self._stopped_at = None
        if self.history:
            self._write_history(draw=True)

    def _check_weights(self):
        """Raise `DivergenceError` for weights that are NaN before anything is trained."""
        for variable in self.model.variables:
            values = keras.ops.convert_to_numpy(variable)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise DivergenceError(
                    f"{variable.path} of {self.model.name} is NaN or infinite before the first "
                    "step: the file of weights is damaged, or belongs to a run that diverged"
                )

    def _check_losses(self, logs, where, steps=1):
        """Raise `DivergenceError` if a loss of the first `steps` steps of an epoch is no number."""
        for name, value in (logs or {}).items():
            if (name == "loss" or name.endswith("_loss")) and not name.startswith("val_"):
                if math.isfinite(float(value)):
                    continue
                why = None
                if self.explain_divergence:  # a gradient may be NaN a step before the loss
                    why = self.explain_divergence(self._epoch, range(max(self._good - 1, 0), steps))
                if not why:
                    why = "the batches are fine, so " if self.explain_divergence else ""
                    why += "the steps may be too large: start again with a smaller learning_rate"
                    why += ", or without mixed_precision" * bool(
                        self.settings.get("mixed_precision")
                    )
                kept = self._what_is_kept()
                raise DivergenceError(f"the {name} became {float(value)} {where}: {why}; {kept}")

    # Results

    @property
    def images_per_second(self):
        """Training images a second over all epochs that were measured, or NaN."""
        rates = np.array(self.history.get("images_per_second", []), float)
        rates = rates[np.isfinite(rates) & (rates > 0)]
        # Every epoch has the same number of images: the mean of rates is the harmonic one.
        return float(1 / np.mean(1 / rates)) if rates.size else math.nan

    def save_model(self, model):
        """Write a Keras model as `model.keras`, as a whole or not at all.

        Raises:
            InputError: if it cannot be written, as on a full disk.
        """
        with self.writing("model.keras") as path:
            model.save(path)

    def finish(self, metrics, next_command=None):
        """Write `metrics.json`; print the metrics, what was written, and what to do next.

        Args:
            metrics: dict of names and values. `images_per_second` is added where it was
                measured.
            next_command: command to try next, text or list of arguments.

        Returns:
            The metrics as plain Python values (NaN as None).
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
        record |= {"settings": self.settings, "versions": _versions()}
        with self._saving(METRICS):
            write_json(self.out / METRICS, record)
        for name, value in metrics.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                print(f"  {name:<20} {value:.4g}")
        print("written:")
        for path in sorted(self.out.iterdir()):
            if not path.name.startswith("."):
                print(f"  {path}{'/' if path.is_dir() else ''}  {size_in_words(path)}")
        if next_command:
            text = next_command if isinstance(next_command, str) else shlex.join(next_command)
            print(f"try next:\n  {text}")
        sys.stdout.flush()
        self.close()
        return metrics

    def _write_history(self, draw):
        # Not `CSVLogger`: it fixes its columns by the first epoch, and validation or mean average
        # precision may come later.
        with self.writing("history.csv") as path:
            self._write_table(path)
        start = time.perf_counter()
        soon = self._drawing_seconds < _DRAWING_SHARE * (start - self._drawn)
        if self._drawn_epochs != self.epochs_done and (draw or soon):
            with self.drawing("history.png") as path:
                draw_history(path, self.history, self.unit)
            self._drawn, self._drawn_epochs = time.perf_counter(), self.epochs_done
            self._drawing_seconds = self._drawn - start

    def _write_table(self, path):
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([self.unit, *self.history])
            for i, row in enumerate(zip(*self.history.values(), strict=True)):
                cells = ["" if math.isnan(value) else repr(float(value)) for value in row]
                writer.writerow([i + 1, *cells])


def _duration(seconds):
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def _versions():
    names = ("tensorflow", "keras", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "kerascv_d2l": __version__, **versions}
