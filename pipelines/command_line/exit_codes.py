"""Exit codes of commands, and the one-line error message on standard error."""

import sys
import traceback

from clozemill.pipelines.common.errors import CheckFailed, TemporaryError, UserError
from clozemill.pipelines.files import storage_errors

EXIT_OK, EXIT_CHECK_FAILED, EXIT_USER_ERROR = 0, CheckFailed.exit_code, UserError.exit_code
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_AGAIN = TemporaryError.exit_code  # the same command resumes


def _line(error: BaseException) -> str:
    """Return an error message as one line without control characters, whatever file names it contains."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(str(error).split()))


def report_error(error: BaseException, debug: bool) -> int:
    """Print an error message, after its traceback if `debug` is set; return the exit code."""
    if debug:
        traceback.print_exception(error)
    known = error if isinstance(error, UserError) else storage_errors.explain(error)
    if known:
        print(f"clozemill: {_line(known)}", file=sys.stderr)
        return known.exit_code
    print(
        f"clozemill: unexpected {type(error).__name__}: {_line(error)[-500:]}: this is a bug in clozemill or a problem with "
        "this machine; run again with --debug for a traceback",
        file=sys.stderr,
    )
    return EXIT_BUG
