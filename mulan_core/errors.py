"""The one error type for mistakes a user can mend, and what no sentence of ours may tell: the secrets in URLs."""

import re

_LOGIN = re.compile(
    r"(?<=://)(?:[^\s/?#\"<>]*"  # up to the host
    # A password that should have been escaped, such as with the slash of S3's keys; what follows the colon is no port.
    r"|[^\s/?#:@\[]*:(?!\d+(?:\W|$)|[\s/])[^@\"<>\n]*)@"
)
_SIGNED = re.compile(
    r"([?&][^\s=&#]*(?:sig|token|secret|passw|pwd|credential|key|auth)[^\s=&#]*=)[^\s&#'\"<>]+", re.IGNORECASE
)
"""The parameters of a query that sign it (S3's, Google's, Azure's), or hold a key or password by their name."""


def without_secrets(text: str) -> str:
    """A text as it may be shown and logged: of URLs in it, without users, passwords and signatures.

    >>> without_secrets("cannot read https://me:pw@host/a.wav?X-Amz-Signature=12&v=3")
    'cannot read https://***@host/a.wav?X-Amz-Signature=***&v=3'
    """
    return _SIGNED.sub(r"\1***", _LOGIN.sub("***@", text)) if "://" in text else text


class UserError(ValueError):
    """A mistake in what the user gave: one sentence with what, where and what to do, without secrets.

    The command line prints it without a traceback and exits with code 2; the API answers 4xx.
    """

    def __str__(self) -> str:
        return without_secrets(super().__str__())
