import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.hashing import mix
from clozemill.pipelines.filtering.word_ngrams import Words, ngrams
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece

TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    ".",
    ",",
    "-",
    "mill",
    "##er",
    "##s",
    "the",
    "river",
    "stone",
    "e",
    "##-",
]
VOCABULARY = Vocabulary.from_tokens(TOKENS)
WORDS = Words(VOCABULARY)
TOKENIZER = WordPiece(VOCABULARY)


def ids(text: str) -> np.ndarray:
    return TOKENIZER.encode([text]).ids


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    """The first output of SplitMix64 with seed 0, from its reference, is the mix of the golden ratio."""
    assert mix(np.array([0x9E3779B97F4A7C15], np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_words_are_pieces_together_and_punctuation_is_left_out() -> None:
    words, begins = WORDS(ids("The millers, the river."))
    assert begins.tolist() == [0, 1, 5, 6]
    assert words[0] == words[2] and len(set(words.tolist())) == 3


def test_punctuation_and_case_do_not_matter() -> None:
    assert WORDS(ids("THE mill... river"))[0].tolist() == WORDS(ids("the, mill river -"))[0].tolist()


def test_the_order_of_pieces_and_of_words_counts() -> None:
    one, other = ids("mill"), np.array([TOKENS.index("mill"), TOKENS.index("##er"), TOKENS.index("##s")])
    turned = np.array([TOKENS.index("mill"), TOKENS.index("##s"), TOKENS.index("##er")])
    assert len({WORDS(each)[0].tobytes() for each in (one, other, turned)}) == 3
    assert ngrams(WORDS(ids("the river"))[0], 2) != ngrams(WORDS(ids("river the"))[0], 2)


def test_only_punctuation() -> None:
    words, begins = WORDS(ids("... , -"))
    assert len(words) == len(begins) == 0 and len(ngrams(words, 1)) == 0


def test_a_piece_that_continues_nothing_is_a_word() -> None:
    assert len(WORDS(np.array([TOKENS.index("##er"), TOKENS.index("the")]))[0]) == 2


def test_the_unknown_word() -> None:
    assert WORDS(ids("zebra the"))[0][0] == WORDS.unknown


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 8))
def test_equal_words_give_equal_ngrams(values: list[int], size: int) -> None:
    words = mix(np.array(values, np.uint64))
    found = ngrams(words, size).tolist()
    plain = [tuple(values[at : at + size]) for at in range(len(values) - size + 1)]
    assert len(found) == len(plain)
    assert [[a == b for b in found] for a in found] == [[a == b for b in plain] for a in plain]


def test_text_of_ids() -> None:
    assert WORDS.text(ids("The millers, the é.")) == "the millers , the e ."
