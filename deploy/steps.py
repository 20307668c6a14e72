"""The steps of a submission: commands as argument lists with their stdin, either printed for pasting or run."""

import contextlib
import shlex
import subprocess
import sys
from dataclasses import dataclass

from clozemill.pipelines.common.errors import UserError

_WIDTH = 110


@dataclass(frozen=True)
class Step:
    """A command. `stdin`: its input, such as a manifest. `always`: run it also if a step fails after the first.

    `hint`: what else to know if it fails.
    """

    title: str
    argv: tuple[str, ...]
    stdin: str = ""
    always: bool = False
    hint: str = ""


def pasteable(argv: tuple[str, ...]) -> str:
    """Return a command quoted for a shell, long ones over several lines."""
    lines, line = [], ""
    for word in map(shlex.quote, argv):
        if line and len(line) + len(word) > _WIDTH:
            lines.append(line)
            line = "    " + word
        else:
            line = f"{line} {word}" if line else word
    return " \\\n".join([*lines, line])


def printed(step: Step) -> str:
    """Return a step for a shell: its title as a comment, the command, and its stdin as a here-document."""
    text = f"# {step.title}\n{pasteable(step.argv)}"
    if step.stdin:
        text += f" <<'END-OF-INPUT'\n{step.stdin.rstrip()}\nEND-OF-INPUT"
    return text + "\n"


def failed(argv: tuple[str, ...], why: str) -> UserError:
    """Return the error for a failed command."""
    return UserError(f"{why}: {shlex.join(argv)}: fix that and run the same command again")


def run(steps: list[Step]) -> None:
    """Run steps in order, printing their titles. Raises UserError with the command of the first step that fails."""
    for number, step in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {step.title}", file=sys.stderr, flush=True)
        try:
            _run(step)
        except BaseException:
            for last in steps[number:] if number > 1 else ():  # the first one starts what these stop
                if last.always:
                    with contextlib.suppress(UserError):  # the error to tell is that of the step
                        _run(last)
            raise


def _run(step: Step) -> None:
    reads = {"input": step.stdin} if step.stdin else {"stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(step.argv, text=True, **reads)
    except FileNotFoundError:
        raise missing(step.argv[0]) from None
    if done.returncode:
        hint = f" ({step.hint})" if step.hint else ""
        raise failed(step.argv, f"{step.title} failed with exit code {done.returncode}{hint}")


def missing(program: str) -> UserError:
    """Return the error for a program that isn't installed."""
    return UserError(f"{program} isn't installed here: install it, or use --dry-run and run its commands elsewhere")
