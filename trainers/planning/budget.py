"""`clozemill plan --budget`: what to train in so many hours on this machine, from pilot runs of several sizes.

Candidates are the sizes that fit into the memory and would see a suitable number of tokens per weight. Each is trained for a
few short, complete schedules with the modern recipe. Their speed gives the steps that the budget allows, and their losses, with
`scaling.forecast`, the loss after these steps.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import aligned, large
from clozemill.trainers.planning.scaling import Forecast, forecast

# Tokens per weight. Hoffmann et al. 2022 found 20 best for decoders; encoders want 10 to 100 times as many (OptiBERT, EMNLP
# 2025).
SUITABLE = (200.0, 2000.0)
MOST_CANDIDATES = 3
FEWEST_STEPS = 1000  # of a run: fewer don't leave the first phase of training
# Nats below word frequencies from which on losses follow the curve: before, an encoder learns frequencies and little else, and
# then it improves by more than a nat within a few hundred steps (docs/explanation/measurements.md).
PLATEAU = 1.75
_FEWEST_PROBED, _MOST_PROBED = 10, 50  # steps of the pilot that measures the speed
REPEATED = 40  # epochs from which on more of the same text brings next to nothing (Muennighoff et al. 2023, arXiv:2305.16264)
USED = 0.9  # of the budget for training steps; the rest is for the start, evaluations and checkpoints
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
HEAD = ("size", "data", "weights", "batch", "s/step", "pilots", "steps", "tokens", "per weight", "epochs", "loss", "nats/char")


def parse_budget(text: str) -> float:
    """Return the seconds of "30m", "2h" or "1.5d". Raises UserError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip().lower())
    if not found or not float(found.group(1)):
        raise UserError(f"--budget {text}: give a time with its unit, such as 30m, 2h or 1.5d")
    return float(found.group(1)) * _UNITS[found.group(2)]


def recipe_of(preset: str) -> str:
    """Return the recipe that a size is trained with; "" for the sizes of BERT, which are trained with the defaults."""
    return "modern" if preset.startswith("modern-") else ""


@dataclass(frozen=True)
class Candidate:
    """A size on a dataset, before its pilots.

    Attributes:
        preset, data: of `pretrain`; data is a folder.
        weights: of the encoder and its heads.
        batch_size: rows per update.
        positions: tokens of a batch, including padding.
        rows: rows per epoch.
        seconds: estimated seconds per step; 0 if unknown.
        fits: whether a step is expected to fit into the memory.
        tokens_per_character: of the text.
        options: of `pretrain`, that the dataset asks for besides: the objective for its pairs, positions for long rows.
    """

    preset: str
    data: str
    weights: int
    batch_size: int
    positions: int
    rows: int
    seconds: float
    fits: bool = True
    tokens_per_character: float = 0.0
    options: tuple[tuple[str, str | int], ...] = ()

    def tokens_per_weight(self, budget: float) -> float:
        """Return the tokens per weight that a budget in seconds allows."""
        return USED * budget / self.seconds * self.positions / self.weights


def choose_candidates(known: Sequence[Candidate], budget: float) -> list[Candidate]:
    """Return the candidates on a dataset to train pilots of: those that fit, with the most suitable tokens per weight.

    Candidates of unknown speed are all kept.
    """

    def distance(one: Candidate) -> float:
        if not one.seconds:
            return 0.0
        ratio = one.tokens_per_weight(budget)
        return max(0.0, math.log(SUITABLE[0] / ratio), math.log(ratio / SUITABLE[1]))

    fitting = [one for one in known if one.fits]
    able = [one for one in fitting if not one.seconds or USED * budget / one.seconds >= FEWEST_STEPS]
    kept = sorted(able or fitting[:1], key=lambda one: (distance(one), one.weights))[:MOST_CANDIDATES]
    return [one for one in known if one in kept]


@dataclass(frozen=True)
class Pilot:
    """A short run with a complete schedule: steps, seconds and tokens per step, and losses in nats.

    unigram_loss: that of word frequencies alone.
    """

    steps: int
    seconds: float
    tokens: float
    loss: float
    unigram_loss: float


@dataclass(frozen=True)
class Row:
    """What the budget gives for a candidate. forecast: of the masked-LM loss; None if the pilots were too short for one."""

    candidate: Candidate
    pilots: tuple[Pilot, ...]
    seconds: float  # per step
    steps: int
    forecast: Forecast | None

    @property
    def tokens(self) -> float:
        """Return the tokens that the run reads, without padding."""
        return self.steps * self.pilots[-1].tokens

    @property
    def epochs(self) -> float:
        return self.steps * self.candidate.batch_size / self.candidate.rows

    @property
    def score(self) -> float:
        """Return the nats per character, by which different vocabularies can be compared; infinite without a forecast."""
        return self.forecast.estimate * self.candidate.tokens_per_character if self.forecast else math.inf


def probe_steps(seconds: float, per_step: float) -> int:
    """Return the steps of the first pilot, which measures the speed: at most a tenth of the time, by an estimate of it."""
    return max(_FEWEST_PROBED, min(_MOST_PROBED, int(seconds / 10 / per_step) if per_step else 0))


def pilot_steps(seconds: float, per_step: float) -> list[int]:
    """Return the steps of three pilots that take `seconds` in all, each twice as long as the one before."""
    first = max(2, round(seconds / (7 * per_step)))  # the speed is that of the steps after the first one, which traces
    return [first, 2 * first, 4 * first]


def make_row(candidate: Candidate, pilots: Sequence[Pilot], budget: float) -> Row:
    """Return the row of a candidate."""
    seconds = min(each.seconds for each in pilots)  # other programs only add to it
    steps = max(1, int(USED * budget / seconds))
    usable = [each for each in pilots if each.loss < each.unigram_loss - PLATEAU]
    found = None
    if len(usable) > 1:
        found = forecast([each.steps for each in usable], [each.loss for each in usable], steps)
    return Row(candidate, tuple(pilots), seconds, steps, found)


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as people read it, under HEAD."""
    one, loss = row.candidate, row.forecast
    told = f"{loss.estimate:.2f} ({loss.low:.2f} to {loss.high:.2f})" if loss else "pilots too short"
    pilots = ", ".join(f"{each.steps:,}: {each.loss:.2f}" for each in row.pilots)
    return (
        one.preset, one.data, large(one.weights), f"{one.batch_size:,}", f"{row.seconds:.3g}", pilots, f"{row.steps:,}",
        large(row.tokens), f"{row.tokens / one.weights:,.0f}", f"{row.epochs:,.1f}", told,
        f"{row.score:.3f}" if loss else "-",
    )  # fmt: skip


def table(rows: Sequence[Row]) -> list[str]:
    """Return the table as lines of text."""
    return aligned([HEAD, *map(cells, rows)])


def best(rows: Sequence[Row]) -> Row:
    """Return the row with the lowest expected loss per character; without any forecast, that of the smallest encoder."""
    return min(rows, key=lambda row: (row.score, row.candidate.weights))


def command(row: Row) -> list[str]:
    """Return the recommended command, as words."""
    one = row.candidate
    recipe = recipe_of(one.preset)
    own = ["--recipe", recipe] if recipe else []
    asked = [word for name, value in one.options for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["clozemill", "pretrain", *own, "--preset", one.preset, *asked, "--data", one.data, "--output", "RUN", "--steps",
            str(row.steps), "--batch-size", str(one.batch_size)]  # fmt: skip


def remarks(row: Row) -> list[str]:
    """Return what to know about a recommendation, a sentence each."""
    found = []
    if row.epochs > REPEATED:
        found.append(
            f"the run reads its text {row.epochs:,.0f} times; after about {REPEATED}, repeating it brings next to nothing"
            f"{', and the forecast is too low' * (row.forecast is not None)}: give more text, or fewer steps"
        )
    if row.forecast is None:
        found.append(
            "the losses of the pilots are still close to that of word frequencies, so the loss of the run can't be forecast: "
            "give a larger --budget or --pilot-share"
        )
    ratio = row.tokens / row.candidate.weights
    advice = "give more time, or a smaller size" if ratio < SUITABLE[0] else "a larger size may be better"
    if not SUITABLE[0] / 10 <= ratio <= SUITABLE[1] * 10:
        found.append(
            f"{ratio:,.0f} tokens per weight are far from the {SUITABLE[0]:,.0f} to {SUITABLE[1]:,.0f} that suit an encoder: "
            f"{advice}"
        )
    return found


def as_json(rows: Sequence[Row], chosen: Row) -> dict:
    """Return the table and the recommendation as plain values."""
    return {"rows": [asdict(row) for row in rows], "recommended": rows.index(chosen), "command": command(chosen)}
