"""What the first signal does to a run: it saves, or ends a step at once if nothing would be saved."""

import pytest

from clozemill.trainers.training import signals
from clozemill.trainers.training.signals import EXIT_STOPPED, Signals


class Ended(BaseException):
    """Raised instead of ending the process."""


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(signals.os, "_exit", leave)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            Signals(unsaved=7, stepping=True, seconds=41.2),
            "saving in about 41 s; send it again to stop at once, and lose the la",
        ),
        (
            Signals(unsaved=7, stepping=True),
            "saving after the current steps; send it again to stop at once, and lose the last 7",
        ),
        (Signals(), "saving after the current steps; send it again to stop at once\n"),
    ],
)
def test_a_signal_is_recorded(state: Signals, told: str, end: None, capsys: pytest.CaptureFixture) -> None:
    state._take("SIGINT")
    assert state.received == "SIGINT" and f"SIGINT: {told}" in capsys.readouterr().err


def test_a_step_with_nothing_to_save_ends_at_once(end: None, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(Ended) as ended:
        Signals(stepping=True)._take("SIGINT")
    assert ended.value.args == (EXIT_STOPPED,)
    assert capsys.readouterr().err == "\nSIGINT: no new step to save; run the same command to resume\n"
