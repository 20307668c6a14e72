"""The exceptions that users see.

Imports neither Beam, TensorFlow nor pyarrow, so that the trainer can use it.
"""

import re

MAX_MESSAGE = 2000  # characters
_LINE_ENDS = re.compile("\\s*[\n\r\v\f\x85\u2028\u2029]\\s*")


class UserError(Exception):
    """An error that the user can fix: one sentence that names the file, what is wrong and what to do.

    The message may contain names and values from files. It is kept on one line, and a very long one is cut in the middle.
    """

    exit_code = 2

    def __str__(self) -> str:
        text = _LINE_ENDS.sub(" ", super().__str__())
        return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} … {text[-MAX_MESSAGE // 2 :]}"


class CheckFailed(UserError):
    """A check failed on what was written."""

    exit_code = 1


class TemporaryError(UserError):
    """Something that the same command may get past later, such as a lost worker: what restarts jobs runs it again."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h
