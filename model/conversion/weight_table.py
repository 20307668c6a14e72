"""The table of an encoder's weights under several names, and the conversion of tensors by it.

Plain numpy. A names module (bert_names, modernbert_names) lists every weight of a configuration with its names and its layout.
The functions here check tensors against that table, and their errors name a tensor that is missing, unexpected or of the wrong
shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

PARTS = ("pooler", "masked_lm", "next_sentence")  # parts that an encoder may lack


@dataclass(frozen=True)
class Entry:
    """A weight. ours, hf, tf1: its names, or "". shape: ours. part: "encoder", "head" or one of PARTS.

    turned: which of the other formats store the transposed matrix. place: (which, of how many) equal parts it is of Hugging
    Face's tensor, along the first axis there.
    """

    ours: str
    hf: str
    tf1: str
    shape: tuple[int, ...]
    part: str = "encoder"
    turned: tuple[str, ...] = ()
    place: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class Converted:
    """weights: ours, float32, by name. parts: which of PARTS were found. passed_over: skipped tensors of unknown heads."""

    weights: dict[str, np.ndarray]
    parts: tuple[str, ...]
    passed_over: tuple[str, ...] = ()


def pick(tensors: Mapping[str, Any], name: str) -> Any:
    """Return a tensor. Raises ValueError if it is missing."""
    if name not in tensors:
        raise ValueError(f"the tensor {name} is missing")
    return tensors[name]


def check_finite(name: str, value: np.ndarray) -> None:
    """Raise ValueError, naming the tensor, if any of its values is NaN or infinite."""
    if not np.isfinite(value).all():
        raise ValueError(f"the tensor {name} holds NaN or infinite values, which no model computes with")


def to_hf(weights: dict[str, np.ndarray], entries: list[Entry]) -> dict[str, np.ndarray]:
    """Return our weights in the table under Hugging Face's names. Raises ValueError if one is missing."""
    found: dict[str, list[np.ndarray]] = {}
    for entry in sorted(entries, key=lambda entry: entry.place):
        found.setdefault(entry.hf, []).append(_laid_out(entry, pick(weights, entry.ours), "hf"))
    return {entry.hf: np.concatenate(found[entry.hf]) if entry.place[1] > 1 else found[entry.hf][0] for entry in entries}


def _laid_out(entry: Entry, value: np.ndarray, kind: str) -> np.ndarray:
    return np.ascontiguousarray(value.T) if kind in entry.turned else value


def _stored_shape(entry: Entry, kind: str) -> tuple[int, ...]:
    """Return the shape of the tensor that holds a weight in another format."""
    shape = entry.shape[::-1] if kind in entry.turned else entry.shape
    return (shape[0] * entry.place[1], *shape[1:])


def convert(tensors: Mapping[str, Any], entries: list[Entry], kind: str, passed_over: tuple[str, ...], what: str) -> Converted:
    """Convert tensors with canonical names.

    Args:
        tensors: arrays, or objects with a `shape` that np.asarray converts.
        entries: the table. kind: "hf" or "tf1", the names in it. what: the kind of encoder, for messages.

    Raises ValueError, naming a missing, unexpected or misshapen tensor.
    """
    names = {getattr(entry, kind): entry for entry in entries}
    there = {names[name].part for name in tensors if name in names}
    if "next_sentence" in there:
        there.add("pooler")  # this head uses the pooled output
    if unexpected := sorted(tensors.keys() - names.keys()):
        more = f" (and {len(unexpected) - 1} more)" if len(unexpected) > 1 else ""
        raise ValueError(f"the tensor {unexpected[0]}{more} has no place in a {what} encoder of these sizes")
    kept = [(getattr(entry, kind), entry) for entry in entries if entry.part in {*there, "encoder"}]
    for name, entry in kept:  # check all shapes before reading any value
        if (found := tuple(pick(tensors, name).shape)) != (shape := _stored_shape(entry, kind)):
            raise ValueError(f"the tensor {name} has the shape {list(found)}, and its configuration asks for {list(shape)}")
    weights: dict[str, np.ndarray] = {}
    read, value = "", np.zeros(0)
    for name, entry in kept:
        if name != read:  # the parts of a tensor follow each other
            read, value = name, np.asarray(tensors[name])
        which, count = entry.place
        with np.errstate(over="ignore"):  # float64 values beyond float32 become infinite, and are rejected
            part = _laid_out(entry, np.split(value, count)[which], kind)
            weights[entry.ours] = np.ascontiguousarray(part, np.float32)
        check_finite(name, weights[entry.ours])
    return Converted(weights, tuple(part for part in PARTS if part in there), passed_over)
