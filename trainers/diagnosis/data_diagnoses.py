"""Diagnoses of the data, and of how a run uses it. Each returns a Finding, or None if all is well.

Docstrings explain the thresholds. Comparisons with math.nan are false, so a figure that isn't recorded raises no alarm.
"""

from clozemill.pipelines.common.formatting import counted
from clozemill.trainers.diagnosis.figures import Figures, Finding
from clozemill.trainers.diagnosis.recorded_run import number, series

_ENOUGH = 200  # eval examples, for an accuracy with a standard error below 4 points
_OF_PAIRS = ("mlm+nsp", "mlm+sop")  # objectives that train the labels of pairs


def answers_visible(figures: Figures) -> Finding | None:
    """A masked-LM accuracy of 95 % on the eval split, or on the train split within its first two epochs.

    The largest encoders fill in about 75 % of the masked tokens of real text. More means that the inputs show the answers.
    """
    evaluated = number(figures.last_evaluation, "masked_lm_accuracy")
    where, accuracy = "eval", evaluated
    if evaluated is None and figures.epochs < 2:
        where, accuracy = "train", (series(figures.train, "masked_lm_accuracy") or [(0, 0.0)])[-1][1]
    if accuracy is None or accuracy < 0.95 or figures.objective == "causal":
        return None
    return Finding(
        "answers_visible",
        f"{100 * accuracy:.1f} % of the masked tokens of the {where} split are predicted, more than language allows",
        "look at examples with clozemill inspect: masked positions must show [MASK], and texts must not repeat each other",
    )


def masks_off(figures: Figures) -> Finding | None:
    """A dataset in which fewer than 1 % of the tokens are masked, or fewer than 5 % of these show [MASK].

    prepare masks 15 % by default, and shows [MASK] at 80 % of them. Fresh masks are as many as those of the shards, but show
    [MASK] as usual.
    """
    kind, again = "masks_off", "prepare the dataset again with --masked-lm-prob 0.15"
    fresh = figures.config.get("masks") == "fresh"
    for found, _ in figures.read if figures.objective != "causal" else ():
        if found.masked < 0.01:
            few = f"{100 * found.masked:.2f} % of the tokens of {found.folder} are masked"
            return Finding(kind, few, f"{again} and --max-predictions 0")
        if found.shown_as_mask < 0.05 and not fresh:
            hidden = f"{100 * found.shown_as_mask:.2f} % of the masked positions of {found.folder} show [MASK]"
            return Finding(kind, hidden, f"{again}, or train with --masks fresh")
    return None


def masks_repeat(figures: Figures) -> Finding | None:
    """Masks that the model has seen more than ten times, because they are those of the shards.

    BERT read each of its ten copies four times. Later, an answer is remembered from the example instead of its context. Copies
    with equal shards count once.
    """
    if figures.objective == "causal" or figures.config.get("masks") == "fresh":
        return None
    for found, epochs in figures.read:
        seen = epochs / max(found.distinct_copies, 1)
        if seen > 10:
            differ = f", of which {found.distinct_copies} differ" if found.distinct_copies < found.copies else ""
            return Finding(
                "masks_repeat",
                f"every example was read {seen:.1f} times with the same masks: {found.folder} has "
                f"{counted(found.copies, 'copy', 'copies')}{differ}",
                "train with --masks fresh, or prepare with a larger --dupe-factor",
            )
    return None


def one_label(figures: Figures) -> Finding | None:
    """Labels of pairs of which more than 95 % are the same: always giving that answer is then nearly perfect."""
    for found, _ in figures.read if figures.objective in _OF_PAIRS else ():
        share = max(found.label_share, 1 - found.label_share)
        if share > 0.95:
            return Finding(
                "one_label",
                f"{100 * share:.1f} % of the labels of {found.folder} are the same",
                "prepare with --pairs single and train with --objective mlm, or prepare longer documents",
            )
    return None


def leaking_labels(figures: Figures) -> Finding | None:
    """Labels of pairs that can be guessed without reading the text. Either of two signs:

    - The shortcut probe, a linear classifier that sees lengths and surface features, is better than the gate accepts.
    - 97 % are right although the masked-LM loss is within 10 % of word frequencies, so that the model hardly uses context.
      Measured in healthy runs at that point: 50 to 82 %.
    """
    kind, remedy = "leaking_labels", "prepare again without --no-gate, or train with --objective mlm"
    for found in figures.datasets if figures.objective in _OF_PAIRS else ():
        if found.probe_accuracy > found.probe_limit:
            guessed = (
                f"a linear classifier guesses {100 * found.probe_accuracy:.1f} % of the labels of {found.folder} from lengths"
            )
            return Finding(kind, f"{guessed} and surface features, more than {100 * found.probe_limit:.1f} %", remedy)
    last, ratio = figures.last_evaluation, figures.beats_unigrams
    accuracy = number(last, "next_sentence_accuracy")
    if accuracy is None or ratio is None or accuracy < 0.97 or ratio < 0.9 or (number(last, "examples") or 0) < _ENOUGH:
        return None
    return Finding(
        kind,
        f"{100 * accuracy:.1f} % of the labels of pairs are right, although the masked-LM loss shows hardly any use of context",
        remedy,
    )


def shuffled_labels(figures: Figures) -> Finding | None:
    """Labels of pairs that stay at chance while words are learnt: at most 55 % right, evaluated and in training.

    The masked-LM loss must be 25 % below word frequencies (40 % for sentence order, which is harder), and 2,000 steps done.
    Healthy runs reached 80 % at 10 % below.
    """
    last, ratio = figures.last_evaluation, figures.beats_unigrams
    accuracy, trained = number(last, "next_sentence_accuracy"), series(figures.train, "next_sentence_accuracy")[-3:]
    if accuracy is None or ratio is None or not trained or (number(last, "examples") or 0) < _ENOUGH or figures.step < 2000:
        return None
    needed = 0.6 if figures.objective == "mlm+sop" else 0.75
    if ratio > needed or accuracy > 0.55 or max(value for _, value in trained) > 0.55:
        return None
    return Finding(
        "shuffled_labels",
        f"{100 * accuracy:.1f} % of the labels of pairs are right, which is chance, although the masked-LM loss is "
        f"{100 * (1 - ratio):.0f} % below that of word frequencies",
        "check with clozemill inspect that the labels belong to their pairs, or train with --objective mlm",
    )


def repeated_data(figures: Figures) -> Finding | None:
    """Documents or examples of which more than 5 % are equal to others. Measured in healthy datasets: 0 to 1 %."""
    for found in figures.datasets:
        share, what = max((found.duplicate_documents, "documents"), (found.duplicate_examples, "examples"))
        if share > 0.05:
            equal = f"{100 * share:.1f} % of the {what} of {found.folder} are equal to others"
            return Finding("repeated_data", equal, "prepare with --dedup exact or near")
    return None


def eval_in_training(figures: Figures) -> Finding | None:
    """Eval text that the model was trained on. Either of two signs:

    - More than 1 % of the eval documents of a dataset, or of one of --eval-data, are in the train split of another one.
    - The evaluated loss is 0.5 nats below that of training at the same step, after two epochs, while the latter has stopped
      falling. Dropout explains less than 0.1. A schedule of mask rates, a mixture or other text may explain more: such runs
      are left out.
    """
    kind = "eval_in_training"
    for found in (*figures.datasets, *figures.eval_sets):
        if found.eval_documents_seen > 0.01 * found.eval_documents:
            seen = f"{found.eval_documents_seen:,} of {counted(found.eval_documents, 'eval document')} of {found.folder}"
            remedy = "prepare all datasets of the run with the same --seed and --eval-fraction"
            return Finding(kind, f"{seen} are in the train split of another dataset of this run", remedy)
    losses, last = figures.losses(), figures.last_evaluation
    loss = number(last, "masked_lm_loss")
    known = [value for step, value in losses if step <= last.get("step", 0)][-3:]
    if loss is None or len(known) < 3 or figures.epochs < 2 or figures.config.get("masked_lm_prob_schedule"):
        return None
    if figures.mixes or figures.evaluates_others:
        return None
    if known[0] - known[-1] > 0.1 or loss > min(known) - 0.5:
        return None
    return Finding(
        kind,
        f"the evaluated masked-LM loss, {loss:.2f} nats, is far below that of training, {known[-1]:.2f}",
        "check that no document of the eval split is in the train split, for example under another spelling (--dedup near, "
        "--eval-by cluster)",
    )


def split_words(figures: Figures) -> Finding | None:
    """A vocabulary that splits words to letters: three pieces per word, or 35 % of the pieces are single letters within words.

    Measured with vocabularies learnt on the text: 1.2 to 1.6 pieces per word, with 5 to 12 % such letters.
    """
    for found in figures.datasets:
        if found.pieces_per_word >= 3 or found.single_letters >= 0.35:
            split = f"words of {found.folder} have {found.pieces_per_word:.1f} pieces on average, and"
            return Finding(
                "split_words",
                f"{split} {100 * found.single_letters:.0f} % of the pieces are single letters within words",
                "learn a vocabulary on this text with clozemill vocab, or a larger one",
            )
    return None


def unknown_words(figures: Figures) -> Finding | None:
    """A vocabulary that can't spell the text: 2 % of the tokens are [UNK]. Measured with ones learnt on the text: 0.1 %."""
    for found in figures.datasets:
        if found.unknown >= 0.02:
            return Finding(
                "unknown_words",
                f"{100 * found.unknown:.1f} % of the tokens of {found.folder} are [UNK]",
                "learn a vocabulary on this text with clozemill vocab, with a larger --max-alphabet if characters are missing",
            )
    return None


def overfitting(figures: Figures) -> Finding | None:
    """An evaluated masked-LM loss that has risen by 2 % and 0.1 nats, in two evaluations or more, while training's fell.

    On the same 200 eval examples, losses of a healthy run varied by 0.07 nats. In the first epoch all text is new. The loss on
    other text than that of training may rise without it.
    """
    evaluated = series(figures.evaluated, "masked_lm_loss")
    best = min(evaluated, key=lambda each: each[1], default=(0, 0.0))
    after = [loss for step, loss in evaluated if step > best[0]]
    if (
        len(after) < 2
        or figures.epochs <= 1
        or figures.evaluates_others
        or min(after[-2:]) < best[1] + max(0.1, 0.02 * best[1])
    ):
        return None
    train = series(figures.train, "masked_lm_loss")
    before, since = [loss for step, loss in train if step <= best[0]], [loss for step, loss in train if step > best[0]]
    if not before or not since or since[-1] > before[-1] - 0.02:
        return None
    return Finding(
        "overfitting",
        f"the evaluated masked-LM loss rose from {best[1]:.3f} nats at step {best[0]:,} to {after[-1]:.3f}, while that of "
        f"training fell to {since[-1]:.3f}, in {figures.epochs:.1f} epochs",
        "train on more text, for fewer steps, or with --masks fresh and more --dropout",
    )


def memorization(figures: Figures) -> Finding | None:
    """A training loss 2 nats below the evaluated one, after five epochs: the model recalls its texts.

    Measured: 0.9 to 1.5 after 46 epochs of the demo corpus, 0.0 to 0.1 within the first epochs of a large one. In a mixture,
    or without an eval split of its own, the two losses are of different text.
    """
    loss, train = number(figures.last_evaluation, "masked_lm_loss"), figures.losses()
    if (
        loss is None
        or not train
        or figures.epochs < 5
        or figures.mixes
        or figures.evaluates_others
        or train[-1][1] > loss - 2.0
    ):
        return None
    return Finding(
        "memorization",
        f"after {figures.epochs:.1f} epochs the training loss, {train[-1][1]:.2f} nats, is far below the evaluated one, "
        f"{loss:.2f}",
        "train on more text, or for fewer epochs",
    )


def failed_gate(figures: Figures) -> Finding | None:
    """A dataset that was prepared with --no-gate although checks of its statistics failed, by five standard deviations."""
    for found in figures.datasets:
        if found.failed_checks:
            return Finding(
                "failed_gate",
                f"{found.folder} failed {counted(len(found.failed_checks), 'check')} of the statistical gate, such as: "
                f"{found.failed_checks[0]}",
                "fix the input and prepare again without --no-gate",
            )
    return None
