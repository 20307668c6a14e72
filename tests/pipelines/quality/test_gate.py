"""The gate: sound examples pass whatever the seed, and a planted fault is caught by the check that is there for it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.runtime import Stopwatch
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import assemble
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.quality import gate, shortcut_probe, statistics
from clozemill.pipelines.quality.checked_copy import CheckedCopy
from clozemill.pipelines.shards import writer
from clozemill.pipelines.shuffle.groups import Group
from tests import reference

VOCABULARY = reference.make_vocabulary(300, 100)
UNK, CLS, SEP, MASK = 2, 3, 4, 5
DEFAULT = ExampleConfig("nsp", "subword", 64, 10, 0.15, 0.1, seed=7)
Change = Callable[[Columns], Columns | None]


def documents(count: int, seed: int, sentences: int = 40, unknown: float = 0.01) -> list[list[list[int]]]:
    """Documents of as many sentences of 2 to 15 tokens, the first of a sentence a word."""
    rng = np.random.Generator(np.random.Philox(seed))

    def sentence() -> list[int]:
        tokens = rng.integers(6, 406, rng.integers(1, 15))
        return [int(rng.integers(6, 306)), *np.where(rng.random(len(tokens)) < unknown, UNK, tokens).tolist()]

    return [[sentence() for _ in range(sentences)] for _ in range(count)]


def judged(
    group: Group, options: ExampleConfig = DEFAULT, change: Change | None = None, told: ExampleConfig | None = None, **about
) -> dict[str, list[gate.Check]]:
    """The gate's checks by name, of a train shard of copy 00 whose columns were changed.

    told: the configuration in dataset.json, if it isn't the one that the examples were made with. about: of the documents.
    """
    told, columns = told or options, []
    shard = writer.write_shard(group, 0, 0, options, VOCABULARY, lambda data: None, Stopwatch(), columns.append)
    chunk = Columns(*map(np.concatenate, zip(*(vars(part).values() for part in columns), strict=True))) if columns else None
    config = vars(told) | {"num_groups": 1, "dedup": "exact"}
    gatherer = statistics.StatisticsCollector(ExampleConfig.of(config), VOCABULARY, "train", 0)
    counts, totals = dict.fromkeys(assemble.STATISTICS, 0), statistics.StatisticsTotals()
    if chunk is not None:
        chunk = (change(chunk) if change else None) or chunk
        counts |= assemble.count_examples(chunk, VOCABULARY)
        gatherer.add(chunk)
    if told.packing == "on":
        counts["padding"] = shard.counts["padding"]
    entry = {
        "examples": len(shard.pairs),
        "split": "train",
        "group": 0,
        "copy": 0,
        "labels_forced": shard.pairs.forced,
        "labels_drawn": shard.pairs.drawn,
    }
    entry |= {
        "random_prob": shard.pairs.random_prob,
        "repeated_sentences": statistics.repeated_sentences(group, options.max_text_tokens),
    }
    totals.add(entry, gatherer.sums())
    kept = len(group.documents) - 1
    about = {
        "kept": kept,
        "duplicates": 0,
        "tokens": len(group.tokens),
        "unknown_tokens": int((group.tokens == UNK).sum()),
    } | about
    splits = {"train": {"documents": kept, "copies": {"00": counts}}}
    contract = {"config": config, "documents": about, "splits": splits, "shards": [entry]}
    bits = [int(size).bit_length() for size in np.diff(group.sentences[group.documents])]
    figures = {
        "splits": totals.splits(),
        "documents": {"token_lengths": np.bincount(bits).tolist()},
        "probe": shortcut_probe.evaluate_probe(totals.probe_rows(), told.max_seq_length),
    }
    found: dict[str, list[gate.Check]] = {}
    for check in gate.run_checks(contract, figures, VOCABULARY):
        found.setdefault(check.name, []).append(check)
    return found


def failed(found: dict[str, list[gate.Check]]) -> set[str]:
    return {name for name, checks in found.items() if not all(check.passed for check in checks)}


GROUP, LARGE = (reference.make_group(documents(count, 1)) for count in (60, 200))


@pytest.mark.parametrize("masking", ["subword", "whole_word", "span"])
@pytest.mark.parametrize("kind", ["nsp", "sop", "single"])
@pytest.mark.parametrize("seed", range(4))
def test_sound_examples_pass(kind: str, masking: str, seed: int) -> None:
    options = replace(DEFAULT, pairs=kind, masking=masking, seed=seed)
    found = judged(GROUP, options)
    assert failed(found) == set()
    names = {
        "masked share",
        "masked as mask",
        "masked as random",
        "masked as kept",
        "next-sentence balance",
        "uniform positions",
    }
    names |= {"uniform random tokens", "pair lengths", "text used", "[UNK] share", "padding", "duplicated examples"}
    names |= {"lengths of A and B"} if kind == "sop" else set()
    assert found.keys() == names | ({"shortcut probe"} if kind != "single" else set())
    assert all(check.low <= check.high and check.where == "train copy 00" for checks in found.values() for check in checks)


@pytest.mark.parametrize("sentences", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["nsp", "sop", "single"])
def test_lists_of_short_documents_pass(kind: str, sentences: int) -> None:
    """Documents of a sentence each force every label; of two, half of them. Both are as the reference has it."""
    group = reference.make_group(documents(3000 // sentences, 2, sentences))
    for short in (0.0, 0.1, 1.0):
        assert failed(judged(group, replace(DEFAULT, pairs=kind, short_seq_prob=short))) == set()


SENTENCES = st.lists(st.sampled_from([UNK, *range(6, 24)]), min_size=1, max_size=14)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(SENTENCES, min_size=1, max_size=6), max_size=6),
    st.sampled_from(["nsp", "sop", "single"]),
    st.sampled_from(["subword", "whole_word", "span"]),
    st.integers(8, 40),
    st.sampled_from([0.05, 0.15, 0.6]),
    st.sampled_from([0, 0.5, 1]),
    st.integers(0, 2**63 - 1),
)
def test_small_corpora_pass(content, kind, masking, length, share, short, seed) -> None:
    """Whatever they hold: with few examples, intervals are wide, and no count may be divided by zero."""
    options = ExampleConfig(kind, masking, length, min(8, length - 3), share, short, seed=seed)
    assert failed(judged(reference.make_group(content), options)) == set()


def originals(columns: Columns) -> np.ndarray:
    ids, (row, slot) = columns.input_ids.copy(), np.nonzero(columns.masked_lm_weights)
    ids[row, columns.masked_lm_positions[row, slot]] = columns.masked_lm_ids[row, slot]
    return ids


def masks_at_the_front(columns: Columns) -> None:
    """The first places instead of drawn ones, with the actions that were drawn."""
    whole = originals(columns)
    for row in range(len(columns)):
        count = int(columns.masked_lm_weights[row].sum())
        old = columns.masked_lm_positions[row, :count]
        now, before = columns.input_ids[row, old], columns.masked_lm_ids[row, :count].copy()
        places = np.flatnonzero(~VOCABULARY.is_special[whole[row]])[:count]
        columns.input_ids[row] = whole[row]
        columns.input_ids[row, places] = np.where(now == before, whole[row, places], now)
        columns.masked_lm_positions[row, :count], columns.masked_lm_ids[row, :count] = places, whole[row, places]


def _replaced(columns: Columns, now: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    row, slot = np.nonzero(columns.masked_lm_weights)
    at, before = columns.masked_lm_positions[row, slot], columns.masked_lm_ids[row, slot]
    columns.input_ids[row, at] = now(columns.input_ids[row, at], before)


def random_from_half(columns: Columns) -> None:
    _replaced(columns, lambda now, before: np.where((now == MASK) | (now == before), now, 6 + now % 200))


def other_actions(columns: Columns) -> None:
    """70/20/10."""
    _replaced(
        columns, lambda now, before: np.where((now == MASK) & (np.arange(len(now)) % 8 == 0), 6 + (before + 7) % 400, now)
    )


def mostly_kept(columns: Columns) -> None:
    """Every third [MASK] is taken back."""
    _replaced(columns, lambda now, before: np.where((now == MASK) & (np.arange(len(now)) % 3 == 0), before, now))


def labels_60_40(columns: Columns) -> None:
    zeros = np.flatnonzero(columns.next_sentence_labels == 0)
    columns.next_sentence_labels[zeros[::4]] = 1


def doubled(columns: Columns) -> Columns:
    return Columns(*(np.concatenate([column, column]) for column in vars(columns).values()))


def overwritten(columns: Columns) -> None:
    """Every third example is a copy of the one before."""
    for column in vars(columns).values():
        column[1::3] = column[: len(column[1::3]) * 3 : 3]


def lengths(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    b_len = columns.segment_ids.sum(axis=1, dtype=np.int64) - 1
    return columns.input_mask.sum(axis=1, dtype=np.int64) - 3 - b_len, b_len


def label_by_parity(columns: Columns) -> None:
    columns.next_sentence_labels[:] = lengths(columns)[1] % 2


def label_by_length(columns: Columns) -> None:
    """The half with the shorter A's is random."""
    a_len = lengths(columns)[0]
    columns.next_sentence_labels[:] = np.argsort(np.argsort(a_len, kind="stable"), kind="stable") < len(a_len) // 2


def first_token_of_random(columns: Columns) -> None:
    """A random B begins with one and the same word."""
    whole, (a_len, _), row = originals(columns), lengths(columns), np.arange(len(columns))
    random = columns.next_sentence_labels == 1
    masked = columns.input_ids[row, a_len + 2] != whole[row, a_len + 2]
    columns.input_ids[row[random & ~masked], (a_len + 2)[random & ~masked]] = 99


def unknown_words(columns: Columns) -> None:
    """Half of what is not masked is [UNK]."""
    hidden = np.zeros(columns.input_ids.shape, bool)
    row, slot = np.nonzero(columns.masked_lm_weights)
    hidden[row, columns.masked_lm_positions[row, slot]] = True
    text = (columns.input_ids >= 6) & ~hidden
    columns.input_ids[text & (np.arange(text.shape[1]) % 2 == 0)] = UNK


def a_is_shorter(columns: Columns) -> None:
    """The shorter side is A, whatever was drawn."""
    a_len, b_len = lengths(columns)
    place = np.arange(columns.segment_ids.shape[1])
    wanted = (place >= np.minimum(a_len, b_len)[:, None] + 2) & (columns.input_mask == 1)
    columns.segment_ids[:] = wanted


def a_swallows_b(columns: Columns) -> None:
    """Segment B keeps its last token alone, [SEP] moves: what A then holds is no run of its own document's."""
    a_len, b_len = lengths(columns)
    for row in range(len(columns)):
        if b_len[row] > 1:
            columns.segment_ids[row, : a_len[row] + b_len[row] + 1] = 0


FAULTS: dict[str, tuple[str, Change, ExampleConfig]] = {
    "masks at the front": ("uniform positions", masks_at_the_front, DEFAULT),
    "random from half the vocabulary": ("uniform random tokens", random_from_half, DEFAULT),
    "70/20/10, [MASK]": ("masked as mask", other_actions, DEFAULT),
    "70/20/10, random": ("masked as random", other_actions, DEFAULT),
    "kept too often": ("masked as kept", mostly_kept, DEFAULT),
    "60/40": ("next-sentence balance", labels_60_40, DEFAULT),
    "doubled": ("duplicated examples", doubled, DEFAULT),
    "doubled, text": ("text used", doubled, DEFAULT),
    "doubled single runs": ("duplicated examples", doubled, replace(DEFAULT, pairs="single")),
    "overwritten": ("duplicated examples", overwritten, DEFAULT),
    "parity": ("shortcut probe", label_by_parity, DEFAULT),
    "short is random": ("shortcut probe", label_by_length, DEFAULT),
    "one first token": ("shortcut probe", first_token_of_random, DEFAULT),
    "[UNK]": ("[UNK] share", unknown_words, DEFAULT),
    "A is the shorter": ("lengths of A and B", a_is_shorter, replace(DEFAULT, pairs="sop")),
    "A swallows B": ("text used", a_swallows_b, DEFAULT),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str) -> None:
    check, change, options = FAULTS[name]
    found = judged(LARGE if check == "shortcut probe" else GROUP, options, change)
    assert check in failed(found)
    sentence = next(each.sentence for each in found[check] if not each.passed)
    assert sentence.startswith("train copy 00: ") and "not within" in sentence


def test_masks_at_the_front_of_whole_words_are_caught() -> None:
    """As few as one masked word of each example that has moved to its first word of one piece."""

    def first_word(columns: Columns) -> None:
        whole = originals(columns)
        for row in np.flatnonzero(columns.masked_lm_weights[:, 0]):
            place, old = 1, int(columns.masked_lm_positions[row, 0])
            if not VOCABULARY.is_continuation[whole[row, [1, 2, old]]].any() and whole[row, old + 1] in range(6, 306):
                columns.input_ids[row, [old, place]] = whole[row, old], MASK
                columns.masked_lm_positions[row, 0], columns.masked_lm_ids[row, 0] = place, whole[row, place]

    assert "uniform positions" in failed(judged(GROUP, replace(DEFAULT, masking="whole_word"), first_word))


def test_another_share_is_caught() -> None:
    """Prepared with 30 % or 10 %, although 15 % is configured."""
    for share in (0.1, 0.3):
        made = replace(DEFAULT, masked_lm_prob=share, max_predictions=20)
        assert "masked share" in failed(judged(GROUP, made, told=replace(made, masked_lm_prob=0.15)))
    made = replace(DEFAULT, masked_lm_prob=0.3, max_predictions=20, masking="whole_word")
    assert "masked share" in failed(judged(GROUP, made, told=replace(made, masked_lm_prob=0.15)))


def test_padding_that_documents_do_not_explain_is_caught() -> None:
    """Examples of 16 tokens in rows of 64, though documents hold hundreds."""

    def padded(columns: Columns) -> Columns:
        wide = {name: np.pad(column, ((0, 0), (0, 48))) for name, column in vars(columns).items() if "input" in name}
        return Columns(**(vars(columns) | wide | {"segment_ids": np.pad(columns.segment_ids, ((0, 0), (0, 48)))}))

    made = replace(DEFAULT, max_seq_length=16)
    group = reference.make_group(documents(400, 1, 20))
    assert "padding" in failed(judged(group, made, padded, replace(made, max_seq_length=64)))


@pytest.mark.parametrize("sentences", [2, 3, 40])
@pytest.mark.parametrize("kind", ["nsp", "sop", "single"])
def test_packed_examples_pass(kind: str, sentences: int) -> None:
    group = reference.make_group(documents(600 // sentences, 2, sentences))
    found = judged(group, replace(DEFAULT, pairs=kind, packing="on"))
    assert failed(found) == set() and "packed separately" in found["padding"][0].sentence


@pytest.mark.parametrize(("rows", "passed"), [(200, True), (251, True), (252, False), (400, False)])
def test_rows_that_are_emptier_than_packing_explains(rows: int, passed: bool) -> None:
    """400 examples of 4 tokens fit into 200 rows of 8, and one shard of them may need 5 * sqrt(400 / 4) + 1 more."""
    config = {"pairs": "single", "max_seq_length": 8, "packing": "on"}
    counts = {"examples": 400, "tokens": 1600, "padding": 8 * rows - 1600}
    figures = {"lengths": [0, 0, 0, 0, 400, 0, 0, 0, 0]}
    copy = CheckedCopy("train copy 00", "train", counts, figures, [{"examples": 400}], {"config": config}, VOCABULARY)
    (check,) = gate._padding(copy)
    assert check.passed == passed and check.high == pytest.approx(1 - 1600 / (8 * 251))
    assert check.sentence.endswith(
        ": 400 examples fit into 200 rows of 8 tokens, and into up to 251 when each shard is packed separately"
    )


def test_sides_that_are_empty_or_do_not_add_up() -> None:
    """Figures alone can say so: such columns are refused before, record by record."""
    found = judged(GROUP)["pair lengths"][0]
    assert (found.passed, found.found, found.high) == (True, 0, 0)
    copy = CheckedCopy("eval copy 00", "eval", {"examples": 2, "tokens": 13}, {}, [], {"config": {"pairs": "nsp"}}, VOCABULARY)
    figures = {"a_lengths": [[0, 0, 1, 0], [0, 0, 1, 0]], "b_lengths": [[0, 1, 0, 0], [0, 0, 1, 0]]}
    documents = {"documents": {"tokens": 9}}
    for change, astray in (({}, 0), ({"b_lengths": [[1, 0, 0, 0], [0, 0, 1, 0]]}, 2), ({"a_lengths": [[0, 0, 0, 1]] * 2}, 2)):
        one = replace(copy, statistics=figures | change, contract=copy.contract | documents)
        assert next(gate._pair_lengths(one)).found == astray


def test_unknown_words_of_the_corpus_itself() -> None:
    """A share that the corpus has is no fault, unless it is more than is masked: then the vocabulary is another one's."""
    found = judged(reference.make_group(documents(60, 3, unknown=0.05)))
    assert failed(found) == set() and found["[UNK] share"][0].found > 0.03
    group = reference.make_group(documents(1000, 3, 4, unknown=0.6))
    assert failed(judged(group)) == {"[UNK] share"}


@pytest.mark.parametrize(("unknown", "passed"), [(2_020, True), (0, True), (15_500, True), (17_000, False)])
def test_unknown_words_of_short_documents_are_no_fault(unknown: int, passed: bool) -> None:
    """Of 100,000 tokens; 1.5 % in the corpus. A random B is from a document drawn uniformly: more often from a short one."""
    documents = {"tokens": 3_900_000, "unknown_tokens": 60_000}
    contract = {"config": vars(DEFAULT), "splits": {"train": {"documents": 31_000}}, "documents": documents}
    counts = {"tokens": 100_000, "unknown": unknown, "examples": 2_000}
    (check,) = gate._unknown(CheckedCopy("train copy 00", "train", counts, {}, [], contract, VOCABULARY))
    assert check.passed == passed and check.high == pytest.approx(0.15 + 5 * (0.15 * 0.85 / 31_000) ** 0.5, abs=1e-3)


def test_an_eval_split_of_short_documents_is_no_fault() -> None:
    """The corpus has a few long documents too, which raise the mean length of all: 12 tokens of 62 are not half of it."""
    counts = {"examples": 300, "tokens": 300 * 15, "padding": 300 * (64 - 15)}
    config = vars(replace(DEFAULT, pairs="nsp", max_seq_length=64)) | {"dedup": "exact"}
    contract = {
        "config": config, "splits": {"eval": {"documents": 300}},
        "documents": {"tokens": 30_000 * 12 + 10 * 400_000, "kept": 30_010, "duplicates": 0},
    }  # fmt: skip
    lengths = [0] * 20
    lengths[4], lengths[19] = 30_000, 10
    copy = CheckedCopy("eval copy 00", "eval", counts, {}, [], contract, VOCABULARY, lengths)
    (check,) = gate._padding(copy)
    assert check.passed and check.high < 1
    assert "documents fill 8 of them" in check.sentence
    (check,) = gate._padding(replace(copy, token_lengths=()))  # of an earlier version, which counted no lengths
    assert not check.passed


def test_repeated_text_is_no_fault() -> None:
    """Half of the documents repeat a boilerplate that fills their examples."""
    boilerplate = documents(1, 8, 10)[0]
    group = reference.make_group([boilerplate + document for document in documents(60, 9, 10)])
    found = judged(group, replace(DEFAULT, pairs="single", short_seq_prob=0.0))
    assert failed(found) == set() and found["duplicated examples"][0].found > 40


def test_an_empty_copy_has_no_checks() -> None:
    assert judged(reference.make_group([])) == {}


def test_merged_cells() -> None:
    least, other = np.array([10, 20, 30, 5, 5, 5, 30, 3.0]), np.arange(8.0)
    cells = gate.merged(least, least, other)
    assert cells[0].tolist() == [30, 30, 48]
    assert [column.sum() for column in cells] == [least.sum(), other.sum()]
    assert gate.merged(np.array([1.0, 2]), np.array([3.0, 4]))[0].tolist() == [7]
    assert gate.merged(np.full(4, 25.0), np.arange(4.0))[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("statistic", "freedom"), [(10.828, 1), (29.588, 10), (149.449, 100)])
def test_the_deviate(statistic: float, freedom: int) -> None:
    """What one chi-square in a thousand exceeds is what one normal deviate in a thousand exceeds."""
    assert gate.deviate(statistic, freedom) == pytest.approx(3.09, abs=0.05)
    assert gate.deviate(9.0, 0) == 0


def test_the_verdict() -> None:
    good, bad = gate.Check("a", "w", 0, 0, 0, True, "fine"), gate.Check("b", "w", 1, 0, 0, False, "not fine")
    assert [gate.gate_result([good], asked) for asked in (True, False)] == [
        {"passed": True, "overridden": False, "checks": [vars(good)]}
    ] * 2
    assert [gate.gate_result([good, bad], asked)["overridden"] for asked in (True, False)] == [False, True]
