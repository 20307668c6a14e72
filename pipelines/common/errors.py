"""The types that travel along the line, the names of a dataset's files, and the one exception users see.

Nothing here imports Beam, TensorFlow or pyarrow, so that the trainer can share it.
"""

import re

MAX_MESSAGE = 2000  # characters
_LINE_ENDS = re.compile("\\s*[\n\r\v\f\x85\u2028\u2029]\\s*")


class UserError(Exception):
    """A mistake that the user can mend: one sentence that names the file, what is wrong and what to do.

    Names and values out of files stand in it: it is kept to one line, and, of a very long one, to both ends.
    """

    def __str__(self) -> str:
        text = _LINE_ENDS.sub(" ", super().__str__())
        return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} … {text[-MAX_MESSAGE // 2 :]}"


class CheckFailed(UserError):
    """A check found something in what was made: exit code 1 instead of 2."""
