"""`pretrain --init` on a dataset with an extended vocabulary: old rows stay, new ones are means, figures of the same text."""

import contextlib
import hashlib
import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clozemill
from clozemill.model.config import EncoderConfig
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.engine import make_engine
from clozemill.trainers.pretraining import grown_vocabulary, pretraining_run, step_zero, warm_start
from clozemill.trainers.pretraining.grown_vocabulary import old_pieces, with_old_pieces
from clozemill.trainers.training import checkpoints, pretrained
from tests.trainers import datasets
from tests.trainers.pretraining.test_warm_start import SMALL, checkpoint, config

TOKENS = [*SPECIAL_TOKENS, *map(str, range(5, 32)), *(f"##{digit}" for digit in range(8))]  # ids 5 to 31, ##0 is 32
ADDED = ["57", "##12", "6123", "x"]
OLD = "".join(f"{token}\n" for token in TOKENS).encode()
NEW = OLD + "".join(f"{token}\n" for token in ADDED).encode()
PIECES = [[5, 39], [33, 34], [6, 33, 34, 35], [1]]  # of ADDED; "x" is unknown
UNK, CLS, SEP, MASK = 1, 2, 3, 4


def vocabulary(*tokens: str) -> Vocabulary:
    return Vocabulary.from_tokens(list(tokens))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dataset in which all entries of NEW occur."""
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "ENTRIES", len(TOKENS) + len(ADDED))
        datasets.write(folder, [[20, 24]], [30], vocabulary=NEW)
    yield folder


def begun(folder: Path, **changes) -> Path:
    """A checkpoint with the vocabulary OLD."""
    told = {"sha256": hashlib.sha256(OLD).hexdigest(), "size": len(TOKENS), "cased": False}
    return checkpoint(folder, words=OLD, vocabulary=told, **changes)


def test_old_pieces_are_those_of_the_old_tokenizer() -> None:
    found = old_pieces(vocabulary(*TOKENS), vocabulary(*TOKENS, *ADDED))
    assert found[: len(TOKENS)] == [[number] for number in range(len(TOKENS))] and found[len(TOKENS) :] == PIECES


def test_old_rows_stay_and_new_rows_are_means() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2) / 3
    weights = {
        "encoder/embeddings/word_embeddings": rows,
        "generator/masked_lm/output_bias": np.array([1, 2, 4, 8], np.float32),
        "encoder/embeddings/position_embeddings": rows,
    }
    found = grown_vocabulary.grown_weights(weights, [[0], [1], [2], [3], [1, 3], [2]])
    words = found["encoder/embeddings/word_embeddings"]
    assert words.dtype == np.float32 and words[:4].tobytes() == rows.tobytes()
    assert words[4:].tolist() == [[np.float32(4 / 3), np.float32(5 / 3)], rows[2].tolist()]
    assert found["generator/masked_lm/output_bias"].tolist() == [1, 2, 4, 8, 5, 4]
    assert found["encoder/embeddings/position_embeddings"] is rows


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        (["a", "b"], "entry 8 of the vocabulary of RUN is 'c', but that of DATA lacks it: prepare the dataset with the same"),
        (["b", "a", "c"], "entry 6 of the vocabulary of RUN is 'a', but that of DATA has it as entry 7: prepare"),
        (["a", "c", "d"], "entry 7 of the vocabulary of RUN is 'b', but that of DATA lacks it"),
    ],
)
def test_other_differences_name_a_token(new: list[str], sentence: str) -> None:
    old = vocabulary(*SPECIAL_TOKENS, "a", "b", "c")
    with pytest.raises(UserError) as error:
        grown_vocabulary.check_extension(old, vocabulary(*SPECIAL_TOKENS, *new), "RUN", "DATA")
    assert str(error.value).startswith(sentence)
    grown_vocabulary.check_extension(old, vocabulary(*old.tokens, "d"), "RUN", "DATA")


def test_a_dataset_that_drops_a_token(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    datasets.write(tmp_path / "data", [[20]], [6], vocabulary=OLD.replace(b"\n17\n", b"\n"))
    with pytest.raises(UserError, match=r"^entry 18 of the vocabulary of .*begun is '17', but that of .*data lacks it: "):
        pretraining_run.plan_run(config(tmp_path / "data", begun(tmp_path / "begun"), tmp_path / "run"))


def columns(ids: list[int], masked: dict[int, int], size: int) -> Columns:
    """One example: the ids that are shown, and what is masked (position -> token)."""
    segments = [0] * 3 + [1] * (len(ids) - 3)
    return Columns(
        np.array([ids + [0] * (size - len(ids))]),
        np.array([[1] * len(ids) + [0] * (size - len(ids))]),
        np.array([segments + [0] * (size - len(ids))]),
        np.array([[*masked, 0]]),
        np.array([[*masked.values(), 0]]),
        np.array([[1.0] * len(masked) + [0.0]], np.float32),
        np.array([0]),
    )


def rows(found: Columns) -> tuple:
    """Return ids, segments, and what is masked, of the only example."""
    length, used = int(found.input_mask[0].sum()), found.masked_lm_weights[0] > 0
    masked = dict(zip(found.masked_lm_positions[0][used].tolist(), found.masked_lm_ids[0][used].tolist(), strict=True))
    return found.input_ids[0, :length].tolist(), found.segment_ids[0, :length].tolist(), masked


# Entries 40 "57" (5, 39), 41 "##12" (33, 34), 42 "6123" (6, 33, 34, 35), 43 "x" ([UNK]).
@pytest.mark.parametrize(
    ("ids", "masked", "size", "expected_new", "expected_old"),
    [
        # [CLS] 57 [MASK] [SEP], masked: 6123. The mask becomes four masks.
        (
            [CLS, 40, MASK, SEP], {2: 42}, 10, ([CLS, 40, MASK, SEP], [0, 0, 0, 1], {2: 42}),
            ([CLS, 5, 39, MASK, MASK, MASK, MASK, SEP], [0] * 7 + [1], {3: 6, 4: 33, 5: 34, 6: 35}),
        ),
        # Masked entries that are shown themselves, and as a random one: 57 stays, 7 is shown as 57, 57 as 9.
        (
            [CLS, 40, 40, 9, SEP], {1: 40, 2: 7, 3: 40}, 10, ([CLS, 40, 40, 9, SEP], [0, 0, 0, 1, 1], {1: 40, 2: 7, 3: 40}),
            ([CLS, 5, 39, 5, 9, 9, SEP], [0, 0, 0, 0, 1, 1, 1], {1: 5, 2: 39, 3: 7, 4: 9} | {4: 5, 5: 39}),
        ),
        # Nine pieces don't fit into 8: both are cut after [CLS] 57 6123, which are 7, and end in [SEP].
        (
            [CLS, 40, 42, MASK, SEP], {1: 40, 3: 8}, 8, ([CLS, 40, 42, SEP], [0, 0, 0, 0], {1: 40}),
            ([CLS, 5, 39, 6, 33, 34, 35, SEP], [0] * 8, {1: 5, 2: 39}),
        ),
        # The text of "x" isn't known to the old entries: nothing is predicted.
        ([CLS, MASK, 8, SEP], {1: 43}, 8, ([CLS, MASK, 8, SEP], [0, 0, 0, 1], {}), ([CLS, MASK, 8, SEP], [0, 0, 0, 1], {})),
    ],
)  # fmt: skip
def test_the_same_text_in_old_pieces(
    ids: list[int], masked: dict[int, int], size: int, expected_new: tuple, expected_old: tuple
) -> None:
    old = vocabulary(*TOKENS)
    both = with_old_pieces(columns(ids, masked, size), old_pieces(old, vocabulary(*TOKENS, *ADDED)), old)
    assert (rows(both[0]), rows(both[1])) == (expected_new, expected_old)
    assert all(each.input_ids.shape == (1, size) for each in both)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_both_versions_mask_the_same_text(data: st.DataObject) -> None:
    """Whatever is masked, as whatever, and wherever it is cut; both have the pieces of the same original text."""
    old, entries = vocabulary(*TOKENS), vocabulary(*TOKENS, *ADDED)
    text = data.draw(st.lists(st.integers(5, 42), min_size=3, max_size=9))
    masked = {at + 1: text[at] for at in sorted(data.draw(st.sets(st.integers(0, len(text) - 1))))}
    shown = [data.draw(st.sampled_from([MASK, token, 7, 42])) if at + 1 in masked else token for at, token in enumerate(text)]
    pieces = old_pieces(old, entries)
    new, plain = with_old_pieces(columns([CLS, *shown, SEP], masked, 12), pieces, old)
    assert step_zero.masked_characters(new, entries.tokens) == step_zero.masked_characters(plain, old.tokens)
    restored = [step_zero.originals(each)[0][each.input_mask[0] > 0].tolist() for each in (new, plain)]
    assert [piece for token in restored[0] for piece in pieces[token]] == restored[1]
    assert restored[0][-1] == SEP and restored[0][:-1] == [CLS, *text][: len(restored[0]) - 1]


class Fixed:
    """A model whose logits at a position are 1 for the token there, and 0 for others."""

    objective = SimpleNamespace(causal=False)

    def __init__(self, entries: int) -> None:
        self.entries = entries

    def __call__(self, batch: dict) -> dict:
        from keras import ops

        there = ops.take_along_axis(batch["input_ids"], batch["masked_lm_positions"], axis=1)
        return {"masked_lm_logits": ops.one_hot(there, self.entries)}


def test_nats_compete_among_the_first_entries(grown: Path) -> None:
    """57 as [MASK], 8 as itself; among 44 entries and among 40."""
    devices = make_engine(config(grown, grown, grown))
    example = columns([CLS, MASK, 8, SEP], {1: 40, 2: 8}, 8)
    found = step_zero.masked_nats(devices, Fixed(44), example, 44)
    total = math.log(43 + math.e)
    assert np.allclose(found[0, :2], [total, total - 1], atol=1e-6)
    plain = columns([CLS, MASK, MASK, 8, SEP], {1: 5, 2: 39, 3: 8}, 8)
    total = math.log(39 + math.e)
    assert np.allclose(step_zero.masked_nats(devices, Fixed(44), plain, 40)[0, :3], [total, total, total - 1], atol=1e-6)


@pytest.mark.parametrize(
    ("index", "objective"),
    [
        ({"objective": "mlm+nsp"}, "mlm+nsp"),
        ({"objective": "rtd"}, "rtd"),
        pytest.param({"objective": "causal", "attention": "causal"}, "causal", marks=pytest.mark.slow),
        pytest.param({"objective": "mlm", "architecture": "modernbert"}, "mlm", marks=pytest.mark.slow),
    ],
)
def test_weights_of_every_objective(index: dict, objective: str, grown: Path, tmp_path: Path) -> None:
    """Old rows are bit for bit those of --init, new rows the means of their pieces; then both figures are computed."""
    changes = {name: value for name, value in index.items() if name != "objective"}
    if "architecture" in changes:
        changes |= {"type_vocab_size": 0, "local_attention": 4, "global_attn_every_n_layers": 2}
    start = begun(
        tmp_path / "begun", index={"objective": objective}, encoder=EncoderConfig(**{**SMALL.to_dict(), **changes}).to_dict()
    )
    planned = pretraining_run.plan_run(config(grown, start, tmp_path / "run", objective=objective))
    assert planned.encoder.vocab_size == len(TOKENS) + len(ADDED)
    model = train_state.make(planned.encoder, objective, "float32", 3, **planned.heads).model
    assert warm_start.load(planned.start, model, planned.vocabulary)[1] == (
        "4 new entries in the vocabulary: each starts from the mean of its old pieces"
    )
    theirs = checkpoints.weights(checkpoints.find(str(start)))
    tables = 0
    for weight in model.weights:
        mine, before = weight.numpy(), theirs[weight.path.split("/", 1)[1]]
        assert mine[: len(before)].tobytes() == before.tobytes(), weight.path
        if len(mine) > len(before):
            tables += 1
            means = [np.mean(before[pieces], axis=0, dtype=np.float64) for pieces in PIECES]
            assert np.array_equal(mine[len(before) :], np.array(means, np.float32))
    assert tables == 2
    devices = make_engine(planned.config)
    (line,) = step_zero.step_zero_lines(planned, OLD, devices, model)
    assert line.startswith("before the first step: ") and line.endswith(" on this text")
    assert step_zero.step_zero_lines(planned, NEW, devices, model) == []


def pretrain(data: Path, start: Path, run: Path, *arguments: str) -> int:
    given = ["--data", str(data), "--init", str(start), "--output", str(run), "--batch-size", "8", "--no-tensorboard"]
    return clozemill.main(["pretrain", *given, "--steps", "2", "--checkpoint-steps", "1", "--learning-rate", "0", *arguments])


@pytest.fixture(scope="module")
def trained(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at a learning rate of 0, with its --init and what it printed beside it."""
    folder, told = tmp_path_factory.mktemp("trained"), io.StringIO()
    with contextlib.redirect_stdout(told):
        assert pretrain(grown, begun(folder / "begun"), folder / "run") == 0
    (folder / "told").write_text(told.getvalue())
    return folder


def check_told(text: str) -> None:
    """Check that the figures are printed before the first step."""
    assert "\n4 new entries in the vocabulary: each starts from the mean of its old pieces\nbefore the first step: " in text
    assert text.index("before the first step") < text.index("step 2/2")


@pytest.mark.slow
def test_a_run_keeps_the_old_rows(trained: Path) -> None:
    final, theirs = checkpoints.find(str(trained / "run")), checkpoints.weights(checkpoints.find(str(trained / "begun")))
    words = checkpoints.weights(final)["encoder/embeddings/word_embeddings"]
    assert words.shape[0] == 44 and words[:40].tobytes() == theirs["encoder/embeddings/word_embeddings"].tobytes()
    assert final.index["encoder"]["vocab_size"] == 44 and Path(final.folder, "vocab.txt").read_bytes() == NEW
    check_told((trained / "told").read_text())


@pytest.mark.slow
def test_a_resumed_run(trained: Path, grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """After a kill before the first checkpoint, --init is read again; later, not."""
    run, start = tmp_path / "run", trained / "begun"
    shutil.copytree(trained / "run", run)
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    assert pretrain(grown, start, run) == 0
    check_told(capsys.readouterr().out)
    shutil.rmtree(run / "checkpoints/step-00000002")
    assert pretrain(grown, start, run) == 0
    told = capsys.readouterr().out
    assert "resuming after step 1\n" in told and "new entries" not in told and "before the first step" not in told


@pytest.mark.slow
def test_exports_have_the_new_entries(trained: Path, tmp_path: Path) -> None:
    """`export` compares every format with the checkpoint; an import of the folder has the same rows, and can be --init."""
    assert (
        clozemill.main(["export", str(trained / "run"), "--output", str(tmp_path / "out"), "--formats", "savedmodel,hf"]) == 0
    )
    assert (tmp_path / "out/hf/vocab.txt").read_bytes() == NEW
    assert json.loads((tmp_path / "out/hf/config.json").read_text())["vocab_size"] == 44
    assert clozemill.main(["import", str(tmp_path / "out/hf"), "--output", str(tmp_path / "imported")]) == 0
    weights = [checkpoints.weights(checkpoints.find(str(path))) for path in (trained / "run", tmp_path / "imported")]
    name = "encoder/embeddings/word_embeddings"
    assert weights[0][name].tobytes() == weights[1][name].tobytes()
    assert pretrained.read(str(tmp_path / "out/savedmodel")).vocabulary.tokens == (*TOKENS, *ADDED)


@pytest.mark.slow
def test_the_run_is_fine_tuned(trained: Path, tmp_path: Path) -> None:
    lines = [f"{'ab'[number % 2]}\t{number} 57 6123\n" for number in range(5, 32)]
    (tmp_path / "train.tsv").write_text("label\ttext\n" + "".join(lines))
    given = ["--init", str(trained / "run"), "--task", "classify", "--train", str(tmp_path / "train.tsv"), "--epochs", "1"]
    assert clozemill.main(["finetune", *given, "--max-seq-length", "12", "--output", str(tmp_path / "tuned")]) == 0
    found = pretrained.read(str(tmp_path / "tuned"))
    assert found.text_encoder(8).ids(["57 612312"])[0].tolist() == [40, 42, 41] and found.encoder.vocab_size == 44
