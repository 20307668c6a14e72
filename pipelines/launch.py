"""Runs a pipeline with a progress bar, and turns what goes wrong, in whatever process, into one sentence.

FnApiRunner blocks and says nothing until it is done. So the pipeline runs in a thread, and this one counts what lies
finished on disk, and is there for Ctrl-C.
"""

import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import apache_beam as beam
import psutil
from tqdm import tqdm

from pipelines.config import RunOptions
from pipelines.runners import pipeline_options
from pipelines.schema import UserError

_POLL_SECONDS = 0.2
# How a UserError of a worker process looks within the traceback that Beam hands over as text.
_USER_ERROR = re.compile(r"UserError: (.+?)(?: \[while running '.*?'\]|\\n|\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Progress:
    """What the bar shows: a stage's name, how much is done and of how much, and the unit (B scales to MB)."""

    stage: str
    done: int
    total: int
    unit: str


def _user_error(error: BaseException) -> UserError | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return UserError(re.sub(r" \[while running '.*?'\]$", "", str(seen)))
        seen = seen.__cause__ or seen.__context__
    found = _USER_ERROR.search(str(error))
    return UserError(found.group(1).strip()) if found else None


def kill_children() -> None:
    """Ends the worker processes at once: what they had not finished carries temporary names."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


class _Bar:
    """A tqdm bar per stage: time left and rate within the stage."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._bar, self._stage = shown, None, ""

    def show(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self.close()
            self._stage = progress.stage
            self._bar = tqdm(
                total=progress.total,
                unit=progress.unit,
                unit_scale=progress.unit == "B",
                desc=progress.stage,
                disable=None if self._shown else True,
                leave=True,
            )
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _run(pipeline: beam.Pipeline, failures: list[BaseException]) -> None:
    # Worker processes inherit the signals that the thread which starts them blocks: Ctrl-C is this program's alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pipeline.run().wait_until_finish()
    except BaseException as error:  # handed to the main thread, which raises it
        failures.append(error)


def launch(
    build: Callable[[beam.Pipeline], object],
    config: RunOptions,
    extra: list[str],
    count: int,
    progress: Callable[[], list[Progress]],
) -> None:
    """Builds and runs a pipeline to its end.

    Args:
        build: applies the transforms.
        extra: the runner's own options.
        count: worker processes for a local run.
        progress: the stages so far, the last of them running; called a few times a second.
    Raises UserError, also for one raised in a worker; KeyboardInterrupt after the workers are gone; anything else as it is.
    """
    options = pipeline_options(config, extra, count)
    try:
        pipeline = beam.Pipeline(options=options)
    except (ValueError, ImportError) as error:
        raise UserError(f"the runner {config.runner} can't be used ({str(error).splitlines()[0]}): check --runner") from None
    build(pipeline)
    failures: list[BaseException] = []
    thread = threading.Thread(target=_run, args=(pipeline, failures), daemon=True)
    bar = _Bar(config.progress)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            for stage in progress():
                bar.show(stage)
    except KeyboardInterrupt:
        kill_children()
        raise
    finally:
        bar.close()
    if failures:
        kill_children()
        time.sleep(0)  # let a dying worker's last words pass before ours
        raise _user_error(failures[0]) or failures[0] from None
