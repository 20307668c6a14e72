"""CPU time of ModernBERT's local attention in chunks, compared with that of all pairs, in graphs for any length.

python -m tests.benchmarks.local_attention --lengths 512 1024 2048 4096

Both sides have the same weights and inputs, and take turns; the ratios are medians over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from clozemill.model import config as encoder_config
from clozemill.model.config import EncoderConfig
from clozemill.model.encoder import Encoder

NEVER = 1 << 20  # chunks


def passes(encoder: Encoder, fewest: int) -> tuple[Callable, Callable]:
    """Return a forward pass, and one with its backward pass, that take chunks from `fewest` of them on; each traced once."""

    def forward(ids):
        return tf.reduce_sum(encoder(ids, tf.ones_like(ids), tf.zeros_like(ids))["sequence_output"] ** 2)

    def both(ids):
        with tf.GradientTape() as tape:
            loss = forward(ids)
        return [
            tf.convert_to_tensor(each)
            for each in tape.gradient(loss, [weight.value for weight in encoder.trainable_weights])
            if each is not None
        ]

    found = [tf.function(call, [tf.TensorSpec([None, None], tf.int32)], autograph=False) for call in (forward, both)]
    before, encoder_config._FEWEST_CHUNKS = encoder_config._FEWEST_CHUNKS, fewest
    try:
        for call in found:
            call.get_concrete_function()
    finally:
        encoder_config._FEWEST_CHUNKS = before
    return found[0], found[1]


def seconds(call: Callable, ids: tf.Tensor) -> float:
    """Return the CPU seconds of a call."""
    began = time.process_time()
    tf.nest.map_structure(lambda value: value.numpy(), call(ids))
    return time.process_time() - began


def main(arguments: argparse.Namespace) -> None:
    """Print a table."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    config = EncoderConfig(
        architecture="modernbert", type_vocab_size=0, hidden_act="gelu_erf", vocab_size=1000, hidden_size=arguments.width,
        num_hidden_layers=arguments.layers, num_attention_heads=arguments.width // 64,
        intermediate_size=arguments.width * 3 // 2, max_position_embeddings=max(arguments.lengths),
    )  # fmt: skip
    encoder = Encoder(config)
    encoder.build()
    sides = {"chunks": passes(encoder, encoder_config._FEWEST_CHUNKS), "all pairs": passes(encoder, NEVER)}
    print(f"{arguments.layers} layers of {arguments.width}, {arguments.tokens:,} tokens, CPU seconds of one thread")
    for length in arguments.lengths:
        ids = tf.constant(np.random.default_rng(0).integers(5, 1000, (max(1, arguments.tokens // length), length)), tf.int32)
        for number, name in enumerate(("forward", "forward and backward")):
            rounds = [[seconds(calls[number], ids) for calls in sides.values()] for _ in range(arguments.rounds + 1)][1:]
            ratio = statistics.median(all_pairs / chunks for chunks, all_pairs in rounds)
            chunks, all_pairs = (statistics.median(each) for each in zip(*rounds, strict=True))
            print(
                f"length {length:,}, {name}: {chunks:.3f} in chunks, {all_pairs:.3f} with all pairs, ratio {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096], help="tokens per row")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per batch")
    parser.add_argument("--layers", type=int, default=6, help="encoder layers")
    parser.add_argument("--width", type=int, default=256, help="hidden size, a multiple of 64")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions")
    main(parser.parse_args())
