"""Run a pipeline with a progress bar, and convert errors of any process to one sentence.

FnApiRunner blocks without output until it is done. So the pipeline runs in a thread, while the main thread counts finished
files on disk and handles Ctrl-C.
"""

import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions
from tqdm import tqdm

from clozemill.pipelines.beam import worker
from clozemill.pipelines.command_line import process
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks, safe_paths

_POLL_SECONDS = 0.2
# A UserError of a worker process within the traceback that Beam returns as text.
_USER_ERROR = re.compile(r"UserError: (.+?)(?: \[while running '.*?'\]|\\n|\n|$)", re.DOTALL)

_DIED = (
    "a worker process died (killed, or out of memory): run the same command again to resume, with fewer --num-workers if "
    "memory is short"
)
_LOG_SECONDS = 2.0  # how long to wait for the last output of workers
_WATCH_SECONDS, _GRACE_SECONDS = 1.0, 15.0  # how often to count workers, and how long before the end of the run they may exit
_WORKER_DIED = re.compile("Channel closed prematurely|Worker subprocess exited|keepalive watchdog|StatusCode.UNAVAILABLE")


@dataclass(frozen=True)
class Progress:
    """A stage for the progress bar: its name, how much is done, the total, and the unit (B scales to MB)."""

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
    if _WORKER_DIED.search(str(error)):
        return UserError(_DIED)
    if "Pipeline has validations errors" in str(error):
        return UserError(f"the runner requires other options: {' '.join(str(error).split())}: see its documentation in Beam")
    found = _USER_ERROR.search(str(error))
    return UserError(found.group(1).strip()) if found else None


def kill_children() -> None:
    """Kill the worker processes at once; their unfinished files have temporary names."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    worker.remove_sockets()


class _Workers:
    """Beam's worker processes. If one dies before it is connected, FnApiRunner would wait for it forever."""

    def __init__(self, options: PipelineOptions) -> None:
        direct = options.view_as(DirectOptions)
        self._wanted = direct.direct_num_workers if direct.direct_running_mode == "multi_processing" else 0
        self._next, self._whole_at = 0.0, time.monotonic()

    def lost(self) -> bool:
        """Return whether workers have been missing for a while, although the run hasn't ended."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _WATCH_SECONDS
            if sum(map(_is_worker, psutil.Process().children(recursive=True))) >= self._wanted:
                self._whole_at = now
        return now - self._whole_at > _GRACE_SECONDS


def _is_worker(child: psutil.Process) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE and worker.__file__ in child.cmdline()
    except psutil.NoSuchProcess:
        return False


class _Bars:
    """A tqdm bar per stage: done, rate and time left within the stage. A stage is done when a later one is shown."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._bars: dict[str, tqdm] = {}

    def show(self, stages: list[Progress]) -> None:
        for number, progress in enumerate(stages):
            if progress.stage not in self._bars:
                self._bars[progress.stage] = tqdm(
                    total=progress.total,
                    unit=progress.unit,
                    unit_scale=progress.unit == "B",
                    desc=progress.stage,
                    disable=None if self._enabled else True,
                    file=sys.stderr,
                )
            bar = self._bars[progress.stage]
            if not bar.disable:
                bar.update(progress.done - bar.n)
                bar.refresh()
            if number < len(stages) - 1:
                bar.close()

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()


def is_template(options: PipelineOptions) -> bool:
    """Return whether the runner only writes the job description for Dataflow, as the launcher of a Flex Template requires.

    Then there is nothing to wait for, and a launcher must not wait.
    """
    return bool(options.view_as(GoogleCloudOptions).template_location)


def _run(pipeline: beam.Pipeline, failures: list[BaseException]) -> None:
    # Worker processes inherit the blocked signals of the thread that starts them, so only this process handles Ctrl-C.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        result = pipeline.run()
        if not is_template(pipeline.options):
            result.wait_until_finish()
    except BaseException as error:  # passed to the main thread, which raises it
        failures.append(error)


@contextlib.contextmanager
def _workers_log(path: str) -> Iterator[None]:
    """Redirect the output of worker processes to a file: Beam's harness logs every step to standard error.

    Workers inherit file descriptor 2, so it is redirected, and this process continues to write to the original. A pipe is in
    between, because the harness exits silently if it can't print: on a full disk the run would wait for it forever.
    """
    with safe_paths.parent(path, make=True):
        log = locks.open_plain(path, os.O_APPEND)
    ours, before = os.dup(2), sys.stderr
    if before is sys.__stderr__:
        sys.stderr = process.error_stream(ours)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)
    copying = threading.Thread(target=_copy, args=(source, log), daemon=True)
    copying.start()
    try:
        yield
    finally:
        os.dup2(ours, 2)
        os.close(ours)
        sys.stderr = before
        copying.join(_LOG_SECONDS)  # the file is complete and closed when the run is over


def _copy(source: int, log: int) -> None:
    """Copy from one file descriptor to another until all writers of the first have closed it; drop what can't be written."""
    while data := os.read(source, 1 << 16):
        with contextlib.suppress(OSError):
            os.write(log, data)
    os.close(source)
    os.close(log)


def launch(
    build: Callable[[beam.Pipeline], object],
    options: PipelineOptions,
    progress: Callable[[], list[Progress]],
    show: bool,
    log: str = "",
) -> None:
    """Build and run a pipeline to completion.

    Args:
        build: applies the transforms.
        progress: returns the stages so far, the last of them running; called a few times a second.
        show: whether to draw progress bars.
        log: local file for the output of worker processes; empty: they print to standard error.
    Raises UserError, including one raised in a worker; KeyboardInterrupt once the workers have exited; other errors unchanged.
    """
    with _new_pipeline(options) as pipeline:
        build(pipeline)
        _run_watched(pipeline, options, progress, show, log)


@contextlib.contextmanager
def _new_pipeline(options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """Yield a pipeline, and always remove its temporary folder; Beam removes it only after a successful run."""
    pipeline = beam.Pipeline(options=options)
    try:
        yield pipeline
    finally:
        shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)


def _run_watched(
    pipeline: beam.Pipeline, options: PipelineOptions, progress: Callable[[], list[Progress]], show: bool, log: str
) -> None:
    """Run a pipeline in a thread, while this thread draws the progress and handles signals."""
    failures: list[BaseException] = []
    thread = threading.Thread(target=_run, args=(pipeline, failures), daemon=True)
    bars, workers = _Bars(show), _Workers(options)
    threading.excepthook = lambda args: None  # raised in threads of the runner: errors that matter are raised by the run itself
    with _workers_log(log) if log else contextlib.nullcontext():
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                if workers.lost():
                    failures.append(UserError(_DIED))
                    break
                bars.show(progress())
        except KeyboardInterrupt:
            kill_children()
            raise
        finally:
            bars.close()
        if failures:  # threads that served the workers may still raise an exception: keep it hidden
            error = _user_error(failures[0]) or failures[0]  # Spark's runner asks its Java process, a child, for the message
            kill_children()
            raise error from None
    threading.excepthook = threading.__excepthook__
