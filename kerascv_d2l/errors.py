"""The error for everything a user can mend: a wrong argument, file or label."""


class InputError(ValueError):
    """Bad input from outside.

    The message names the argument, file or line, shows what arrived and says
    what to do. Scripts print it without a traceback and exit with status 2.
    """


class WriteError(InputError):
    """A file or folder cannot be written, as on a full disk; the message names it."""


def first_of(names, most=10):
    """Join the first names by commas, and say how many more there are."""
    names = list(map(str, names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
