"""A progress bar for what takes long."""

import sys
import time

SECONDS = 2  # what takes less shows nothing
_CELLS = 30


def with_progress(items, what):
    """Go through a sequence; after two seconds a bar shows how far, on a terminal or in a notebook.

    Args:
        items: sequence.
        what: str, said before the bar.

    Yields:
        the items.
    """
    shown, begin = False, time.perf_counter()
    watched = sys.stdout.isatty() or "ipykernel" in sys.modules
    for number, item in enumerate(items):
        seconds = time.perf_counter() - begin
        if watched and seconds > SECONDS:
            shown, left = True, seconds / number * (len(items) - number)
            bar = "#" * (number * _CELLS // len(items))
            line = f"\r{what} [{bar:{_CELLS}}] {number}/{len(items)}, {left:.0f} s left "
            print(line, end="", flush=True)
        yield item
    if shown:
        print(f"\r{what} [{'#' * _CELLS}] {len(items)}/{len(items)}              ", flush=True)
