"""Run a training on a TPU VM: create the VM, install, start and follow the training, recreate the VM after a preemption, and
delete it at the end.

The pure functions `resource_state` and `next_action` decide what to do next from the observed state. Commands are run by a
function that tests can replace. Training resumes from its last checkpoint, because the output is in a bucket.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from clozemill.deploy import command_options, processes, steps
from clozemill.deploy.config import SubmitConfig
from clozemill.deploy.processes import Done
from clozemill.deploy.steps import Step
from clozemill.deploy.tpu.commands import Commands
from clozemill.pipelines.command_line.exit_codes import EXIT_AGAIN
from clozemill.pipelines.common.errors import UserError

ABSENT = "ABSENT"
_WAIT = {
    "",
    "CREATING",
    "ACCEPTED",
    "PROVISIONING",
    "WAITING_FOR_RESOURCES",
    "STARTING",
    "RESTARTING",
    "REPAIRING",
    "REIMAGING",
}
_LOST = {ABSENT, "SUSPENDING", "SUSPENDED", "DELETING", "PREEMPTED", "TERMINATED", "STOPPING", "STOPPED"}
_TRIES = 3  # attempts per command on a running TPU VM: ssh isn't ready immediately


def resource_state(resource: str, node: str) -> str:
    """Map the states of a queued resource and its TPU VM to wait, ready, lost or failed."""
    if resource == "FAILED":
        return "failed"
    if resource in _LOST or (resource == "ACTIVE" and node in _LOST):
        return "lost"
    return "ready" if (resource, node) == ("ACTIVE", "READY") else "wait"


def next_action(seen: str, state: str) -> str:
    """Return what to do when the log has ended: done, failed, recreate, start or follow.

    seen: state of the TPU. state: state of the training, `running 0`, `exited CODE`, or empty if unknown.
    """
    if seen == "lost":
        return "recreate"
    if state.startswith("exited "):
        return {"exited 0": "done", f"exited {EXIT_AGAIN}": "start"}.get(state, "failed")
    return "follow"


class _Lost(Exception):
    """The TPU was preempted."""


@dataclass
class TpuJob:
    """One training. `run` runs a step, quietly or not; `pause` waits between two checks."""

    config: SubmitConfig
    arguments: list[str]
    run: Callable[[Step, bool], Done] = processes.run
    pause: Callable[[float], None] = time.sleep
    made: bool = False  # a TPU that we created may exist
    started: bool = False  # a training may be running
    _told: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self.commands = Commands(self.config)

    def _say(self, text: str) -> None:
        if text != self._told:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
        self._told = text

    def _state(self, step: Step) -> tuple[str, str]:
        """Return (state, reason) of the resource that a describe step names."""
        done = self.run(step, True)
        if done.code:
            if "NOT_FOUND" in done.err or "not found" in done.err:
                return ABSENT, ""
            raise steps.failed(step.argv, f"{self.commands.name} can't be described ({done.reason})")
        if not done.out.lstrip().startswith("{"):
            return done.out.strip(), ""
        state = json.loads(done.out).get("state") or {}
        why = ((state.get("failedData") or {}).get("error") or {}).get("message", "")
        return state.get("state", ""), why

    def look(self) -> str:
        """Return the current state of the TPU. Raises UserError if it failed permanently."""
        if self.config.existing:
            resource, why = "ACTIVE", ""
        else:
            resource, why = self._state(self.commands.describe())
        node = self._state(self.commands.describe_node())[0] if resource == "ACTIVE" else ""
        seen = resource_state(resource, node)
        self._say(f"{self.commands.name}: {node or resource}")
        if seen == "failed":
            raise UserError(
                f"{self.config.tpu_type} {self.commands.name} could not be created ({why or 'no reason was given'}): "
                "try another zone, type or --no-spot, or ask for quota"
            )
        return seen

    def _create(self) -> None:
        step = self.commands.create()
        self._say(step.title)
        self.made = True  # from here on, even a failed command may leave a resource
        done = self.run(step, True)
        if done.code:
            self.made = "ALREADY_EXISTS" not in done.err  # the resource then belongs to someone else
            why = "the quota is used up" if "quota" in done.err.lower() else "the TPU was refused"
            hint = "ask for quota, or try another zone or --no-spot" if "quota" in done.err.lower() else "fix that"
            raise UserError(f"{why} ({done.reason}): {' '.join(step.argv)}: {hint} and run the same command again")

    def _wait(self) -> None:
        while (seen := self.look()) == "wait":
            self.pause(self.config.poll_seconds)
        if seen == "lost":
            raise _Lost

    def _do(self, step: Step, tries: int = _TRIES) -> None:
        """Run a step on the TPU VM, with retries. Raises _Lost if the VM is gone, UserError if it exists."""
        for number in range(tries):
            self._say(step.title + f", try {number + 1}" * (number > 0))
            done = self.run(step, False)
            if not done.code:
                return
            if self.look() == "lost":
                raise _Lost
            self.pause(self.config.poll_seconds)
        raise steps.failed(step.argv, f"{step.title} failed with exit code {done.code}")

    def _train(self) -> None:
        """Start the training and follow its log to the end. Raises _Lost, or UserError if it failed, or stopped too often."""
        todo, starts = "start", 0
        while todo != "done":
            if todo == "start":
                self.started, starts = True, starts + 1
                for step in self.commands.start(self.arguments):
                    self._do(step)
            self._say(self.commands.follow().title)
            if not self.run(self.commands.follow(), False).code:
                return  # whatever the state of the TPU is now
            seen, state = self.look(), ""
            if seen == "ready":
                state = self.run(self.commands.ended(), True).out.strip()
            todo = next_action(seen, state)
            if todo == "recreate":
                raise _Lost
            if todo == "failed":
                raise UserError(f"the training failed with exit code {state.split()[-1]}: see its last lines above")
            if todo == "start" and starts > self.config.retries:
                raise UserError(
                    f"the training was stopped {starts} times: see its last lines above, and run the same command again to "
                    "resume from the last checkpoint"
                )
            if todo != "done":
                self._say("the training is still running" if todo == "follow" else "the training was stopped and restarts")
                self.pause(self.config.poll_seconds)

    def live(self) -> None:
        """Create the TPU and train, with retries. Raises UserError, also after too many preemptions."""
        for attempt in range(self.config.retries + 1):
            try:
                if not self.config.existing:
                    self._create()
                self._wait()
                for step in self.commands.install():
                    self._do(step)
                self._train()
                return
            except _Lost:
                self.started = False
                if self.config.existing:
                    raise UserError(
                        f"{self.commands.name} was preempted: recreate it, and run the same command again"
                    ) from None
                self._say(f"{self.commands.name} was preempted, {self.config.retries - attempt} retries left")
                self.delete()
        raise UserError(
            f"{self.commands.name} was preempted {self.config.retries + 1} times: run the same command again to resume "
            "from the last checkpoint, with more --retries, or with --no-spot"
        )

    def delete(self) -> None:
        """Delete the TPU, so that it costs nothing. Raises UserError if that fails."""
        step = self.commands.delete()
        self._say(step.title)
        done = self.run(step, True)
        if done.code and "NOT_FOUND" not in done.err and "not found" not in done.err:
            raise UserError(
                f"{self.commands.name} could not be deleted and still costs money ({done.reason}): {' '.join(step.argv)}"
            )
        self.made = False

    def end(self, interrupted: bool) -> None:
        """Delete the TPU, or print that it still exists. After Ctrl-C the training saves first."""
        if interrupted and self.started and self.config.autodelete and self.made:
            self._say(self.commands.stop().title)
            self.run(self.commands.stop(), True)
        if self.made and self.config.autodelete:
            self.delete()
        elif self.config.existing and interrupted and self.started:
            print(f"the training goes on at {self.commands.name}: end it with clozemill submit tpu stop", file=sys.stderr)
        elif self.made or (interrupted and self.started):
            print(f"{self.commands.name} still exists: delete it with clozemill submit tpu stop", file=sys.stderr)


def main(config: SubmitConfig, planned: list[Step], words: list[str]) -> int:
    """Run `clozemill submit tpu`. Raises UserError; KeyboardInterrupt after the TPU is deleted."""
    if config.action != "run":
        codes = [processes.run(step, False).code for step in planned]  # stop: an unreachable TPU is deleted too
        if codes[-1] and config.action == "stop":
            raise steps.failed(planned[-1].argv, f"{planned[-1].title} failed with exit code {codes[-1]}")
        return int(any(codes) and config.action == "status")
    steps.run([step for step in planned if step.argv[:2] == ("gcloud", "builds")])
    life, failure = TpuJob(config, command_options.pretrain(config, words)), None
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        life.live()
    except BaseException as error:
        failure = error
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)  # don't interrupt the cleanup
    try:
        life.end(isinstance(failure, KeyboardInterrupt))
    except UserError as error:
        raise UserError(f"{failure}; and {error}" if isinstance(failure, UserError) else str(error)) from failure
    finally:
        signal.signal(signal.SIGINT, ours)
        signal.signal(signal.SIGTERM, before)
    if failure is not None:
        raise failure
    print(f"done: {config.name}", file=sys.stderr)
    return 0
