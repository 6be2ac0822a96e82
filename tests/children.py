"""Processes of their own for tests, forked from one that has imported TensorFlow once.

Devices must be set before TensorFlow starts, and what is killed cannot be the process of the
tests. Importing TensorFlow anew for each would take five seconds.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tensorflow", "keras"])  # neither starts TensorFlow


class Child:
    """A Python script that runs as `python SCRIPT ARGUMENTS` would.

    Args:
        script: path.
        *arguments: what the script finds in `sys.argv`.
        folder: to run in.
        **environment: variables to set.
    """

    def __init__(self, script, *arguments, folder=".", **environment):
        self._files = [tempfile.NamedTemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        names = [file.name for file in self._files]
        argv = [str(argument) for argument in (script, *arguments)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **environment}
        self._process = _CONTEXT.Process(
            target=_work, args=(argv, os.path.abspath(folder), names, environment)
        )
        self._process.start()

    @property
    def stdout(self):
        """What it has written so far."""
        return Path(self._files[0].name).read_text()

    @property
    def stderr(self):
        """What it has written so far, to the other stream."""
        return Path(self._files[1].name).read_text()

    @property
    def returncode(self):
        """Exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout=900):
        """Wait for the end; give the exit status. `TimeoutError` kills the process."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise TimeoutError(f"not done after {timeout} seconds: {self.stderr[-3000:]}")
        return self.returncode

    def wait_for(self, condition, timeout=300):
        """Wait until `condition()` is true while the process runs."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.returncode is None and time.monotonic() < deadline, self.stderr[-3000:]
            time.sleep(0.02)

    def send_signal(self, number):
        """Send a signal."""
        os.kill(self._process.pid, number)

    def kill(self):
        """Make sure that it has ended."""
        self._process.kill()
        self._process.join()


def run(script, *arguments, **options):
    """Run a script to its end, as `Child` does; give `subprocess.CompletedProcess`."""
    child = Child(script, *arguments, **options)
    child.wait()
    return subprocess.CompletedProcess(script, child.returncode, child.stdout, child.stderr)


def optimize_graphs(on):
    """Let this process optimize graphs, or not: it takes longer than to run them a few times.

    Neither the tests nor `Child` do, but for `optimized_graphs`, and where LiteRT converts.
    """
    if "tensorflow" in sys.modules:
        options = sys.modules["tensorflow"].config.optimizer
        options.set_experimental_options({"disable_meta_optimizer": not on})


def draw_nothing(path, *_):
    """Stand in for `draw_history` where a toy trains."""
    Path(path).touch()


def _work(argv, folder, files, environment):
    for number, name in enumerate(files, start=1):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(environment)
    os.chdir(folder)
    optimize_graphs(False)
    sys.argv = argv
    sys.path.insert(0, os.path.dirname(os.path.abspath(argv[0])))
    runpy.run_path(argv[0], run_name="__main__")
