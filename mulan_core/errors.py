"""The one error type for mistakes a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: one sentence with what, where and what to do.

    The command line prints it without a traceback and exits with code 2; the API answers 4xx.
    """
