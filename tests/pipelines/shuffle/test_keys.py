"""Keys, places and streams: stable values, ranges, shares and independence."""

import itertools

import numpy as np
import pytest

from clozemill.pipelines.examples import random_streams
from clozemill.pipelines.shuffle import keys
from tests import reference

Z = 4.5
KEYS = [keys.document_key(f"document {number}") for number in range(20_000)]


def test_document_key_is_stable():
    """BLAKE2b of the UTF-8 text, 16 bytes; a lone surrogate is no error."""
    assert keys.document_key("").hex() == "cae66941d9efbd404e4d88758ea67670"
    assert keys.document_key("A kite.").hex() == "fdc9f5449aa4a65df89b70ed520037e4"
    assert len(keys.document_key("\ud800")) == 16
    assert len(set(KEYS)) == len(KEYS)


def test_place_is_stable():
    """Golden: a change here changes every dataset."""
    group, sort_key = keys.assign_group(KEYS[0], 7, 10, 2, 0.01)
    assert (group, sort_key[:16].hex()) == (2, "3a7572461bd6e9ceac4f5746d5c2c149")


def test_groups_are_ranges_of_the_sort_key():
    """Sorted by sort key, the group numbers of train never fall, nor those of eval."""
    places = sorted((keys.assign_group(key, 3, 13, 4, 0.2) for key in KEYS), key=lambda place: place[1])
    train = [group for group, _ in places if group < 13]
    evaluation = [group for group, _ in places if group >= 13]
    assert train == sorted(train) and evaluation == sorted(evaluation)
    assert set(train) == set(range(13)) and set(evaluation) == {13, 14, 15, 16}
    assert reference.fits(np.bincount(train), [1] * 13) < Z
    assert reference.fits(np.bincount(evaluation)[13:], [1] * 4) < Z
    assert len({sort_key for _, sort_key in places}) == len(KEYS)


def test_the_group_comes_from_the_first_64_bits():
    for key in KEYS[:500]:
        group, sort_key = keys.assign_group(key, 5, 1000, 0, 0.0)
        assert group == int.from_bytes(sort_key[:8], "big") * 1000 // 2**64
        assert len(sort_key) == keys.KEY_BYTES
        assert keys.document_key_of(sort_key) == key


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_the_eval_split_holds_its_share(fraction: float):
    held = sum(keys.assign_group(key, 1, 8, 2, fraction)[0] >= 8 for key in KEYS)
    assert abs(held - fraction * len(KEYS)) < Z * (fraction * (1 - fraction) * len(KEYS)) ** 0.5


def test_exact_eval_shares():
    assert all(keys.assign_group(key, 1, 8, 2, 0.0)[0] < 8 for key in KEYS[:1000])
    assert all(keys.assign_group(key, 1, 8, 2, 1.0)[0] >= 8 for key in KEYS[:1000])
    assert all(keys.assign_group(key, 1, 8, 0, 0.5)[0] < 8 for key in KEYS[:1000])  # no eval group: no eval split


def test_who_is_in_eval_depends_on_key_and_seed_alone():
    def held(seed: int, groups: int, eval_groups: int) -> list[bool]:
        return [keys.assign_group(key, seed, groups, eval_groups, 0.1)[0] >= groups for key in KEYS[:5000]]

    assert held(1, 8, 2) == held(1, 100, 5) != held(2, 8, 2)
    grown = [keys.assign_group(key, 1, 8, 2, 0.2)[0] >= 8 for key in KEYS[:5000]]
    assert all(after or not before for before, after in zip(held(1, 8, 2), grown, strict=True))


def test_eval_is_independent_of_the_group():
    """The share of eval is the same in every range of the sort key, else a group would be no simple random sample."""
    places = [keys.assign_group(key, 2, 10, 1, 0.3) for key in KEYS]
    ranges = [int.from_bytes(sort_key[:8], "big") * 10 >> 64 for _, sort_key in places]
    held = np.bincount([place for place, (group, _) in zip(ranges, places, strict=True) if group == 10], minlength=10)
    assert reference.fits(held, np.bincount(ranges)) < Z


def test_seeds_shuffle_differently():
    one, other = (np.array([keys.assign_group(key, seed, 100, 0, 0)[0] for key in KEYS]) for seed in (1, 2))
    assert abs((one == other).mean() - 0.01) < Z * (0.01 / len(KEYS)) ** 0.5
    assert keys.assign_group(KEYS[0], 2**63 - 1, 10, 0, 0) != keys.assign_group(KEYS[0], 0, 10, 0, 0)


def test_streams_are_philox_and_stable():
    """Golden: a change here changes every dataset."""
    assert random_streams.generator(7, 3, 1, "pairs").integers(0, 1 << 32, 3).tolist() == [1897075449, 2180766877, 1201952623]
    assert isinstance(random_streams.generator(7, 3, 1, "pairs").bit_generator, np.random.Philox)


def test_every_purpose_copy_group_and_seed_has_its_own_stream():
    names = list(itertools.product((0, 1, 2**63 - 1), (0, 1, 500), (0, 1, 4), random_streams.PURPOSES))
    first = {tuple(random_streams.generator(*name).integers(0, 1 << 62, 2).tolist()) for name in names}
    assert len(first) == len(names) == 3 * 3 * 3 * 5


def test_an_unknown_purpose_is_an_error():
    with pytest.raises(ValueError):
        random_streams.generator(0, 0, 0, "colour")
