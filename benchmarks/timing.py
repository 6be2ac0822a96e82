"""Time several implementations of one piece of work against each other, fairly.

Each side runs in a worker process of its own, so that neither meets the other's thread pools, and
so that a side may live in another Python. The workers take turns: A B C A B C …, never two at
once; what the machine does in the meantime hits all of them alike. A worker measures itself, so
the pipe to it costs nothing. Figures are medians, ratios are medians of the rounds' own ratios.

A benchmark is a script that calls `serve` when it is started as a worker and `Worker` otherwise:

    if args.serve:
        timing.serve(SIDES[args.serve](args.folder))
    with timing.Worker([sys.executable, __file__, "--serve", "book"]) as book, …:
        seconds = timing.interleave({"book": (book, "case"), "ours": (ours, "case")}, rounds=15)

Needs the standard library alone, and so runs in each side's Python.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

THREADS = 2  # The goals are stated for two cores; every side gets as many threads.
BUSY_LOAD = 0.5  # Load average above which another program probably takes part of the cores.
# After a turn the threads of its side spin for some milliseconds, waiting for more work.
PAUSE_SECONDS = 0.05


def serve(cases, about=None):
    """Answer the coordinating process's questions until it closes the pipe.

    Args:
        cases: mapping of a name to a function without arguments. Each call of it does the work
            once, and returns only when the work is done.
        about: JSON-able description of this side (versions, threads), or None.
    """
    # What libraries print on standard output must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"cases": list(cases), "about": about or {}}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        work = cases[question["case"]]
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(question["calls"]):
            work()
        wall = (time.perf_counter() - start) / question["calls"]
        cpu = (time.process_time() - cpu) / question["calls"]
        print(json.dumps({"seconds": wall, "cpu_seconds": cpu}), file=answers, flush=True)


class Worker:
    """A process that runs `serve`.

    Args:
        command: list of strings, the program and its arguments.

    Attributes:
        cases: names of the cases it offers.
        about: its description of itself, a dict.

    Raises:
        RuntimeError: if the process ends before it answers.
    """

    def __init__(self, command):
        self._command = command
        threads = str(THREADS)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        }
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        hello = self._read()
        self.cases, self.about = hello["cases"], hello["about"]

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(
                f"the worker {' '.join(self._command)} ended with code {code} before it answered; "
                "its messages stand above. benchmarks/README.md says what each side needs."
            )
        return json.loads(line)

    def time(self, case, calls=1):
        """Do the work of `case` `calls` times; return the mean wall-clock seconds of a call."""
        self._process.stdin.write(json.dumps({"case": case, "calls": calls}) + "\n")
        self._process.stdin.flush()
        return self._read()["seconds"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()


def interleave(sides, rounds, warm_up=2, seconds_per_turn=0.1):
    """Time sides in turns.

    Args:
        sides: mapping of a name to a pair (Worker, name of its case).
        rounds: how many times each side has its turn.
        warm_up: calls of each side before anything is measured (tracing, compilation, caches).
        seconds_per_turn: a side faster than this is called several times in one turn.

    Returns:
        A dict from each name to its list of `rounds` wall-clock seconds a call.
    """
    calls = {}
    for name, (worker, case) in sides.items():
        for _ in range(warm_up):
            seconds = worker.time(case)
        calls[name] = max(1, int(seconds_per_turn / max(seconds, 1e-9)))
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (worker, case) in sides.items():
            time.sleep(PAUSE_SECONDS)
            times[name].append(worker.time(case, calls[name]))
    return times


def quartiles(values):
    """Return the lower quartile, the median and the upper quartile of `values`."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def ratio(slow, fast):
    """Compare two sides round by round.

    Args:
        slow: seconds of each round of the side to beat.
        fast: seconds of the same rounds of the other.

    Returns:
        Lower quartile, median, upper quartile of `slow / fast`.
    """
    return quartiles([s / f for s, f in zip(slow, fast, strict=True)])


def show_seconds(seconds):
    """Write a duration with a unit that suits it."""
    for unit, scale in (("s", 1), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


HEADER = "| work | against | theirs | ours | ratio (quartiles) | goal |\n|---|---|---|---|---|---|"


def row(work, against, theirs, ours, goal=""):
    """Write a comparison as one row of the Markdown table that `HEADER` opens.

    Args:
        work: what is done.
        against: name of the other side.
        theirs: seconds of its rounds.
        ours: seconds of our rounds.
        goal: the goal, as text.

    Returns:
        A string. The ratio is theirs / ours: above 1, ours is faster.
    """
    low, middle, high = ratio(theirs, ours)
    seconds = [show_seconds(statistics.median(t)) for t in (theirs, ours)]
    return (
        f"| {work} | {against} | {seconds[0]} | {seconds[1]} | "
        f"**{middle:.3g}x** ({low:.3g}-{high:.3g}) | {goal} |"
    )


def machine(workers: Mapping[str, Worker] | None = None):
    """Describe the machine, how busy it is, and each side's versions, as lines of text."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass  # Not Linux: the short name has to do.
    load = os.getloadavg()[0]
    lines = [f"{os.cpu_count()} CPUs ({model}), {THREADS} threads a side, load average {load:.2f}"]
    if load > BUSY_LOAD:
        lines.append("**The machine was busy before this began: results are not to be relied on.**")
    for name, worker in (workers or {}).items():
        about = ", ".join(f"{key} {value}" for key, value in worker.about.items())
        lines.append(f"- {name}: {about}")
    return "\n".join(lines)
