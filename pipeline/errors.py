"""The one error a user is meant to read."""


class UserError(Exception):
    """Bad input: the message is one sentence that says what, where and what was expected.

    The command line prints it without a traceback and exits with status 1.
    """
