"""The error for everything a user can mend: a wrong argument, file or label."""


class InputError(ValueError):
    """Bad input from outside.

    The message names the argument, file or line, shows what arrived and says
    what to do. Scripts print it without a traceback and exit with status 2.
    """
