"""The contenders of `train_step`: each makes BERT's pretraining step with one library, as its users would write it.

`train_step` runs each in its own process, with the interpreter that has the library; only our own contender imports clozemill.
The process describes itself in a line of JSON. Then, for every line "N" on standard input, it runs N steps and prints another
such line.

    PYTHON tests/benchmarks/contenders.py NAME BATCHES.npz THREADS
"""

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

LAYERS, WIDTH, HEADS, INNER, VOCABULARY, POSITIONS, DROPOUT = 4, 256, 4, 1024, 30522, 512, 0.1
RATE, DECAY, EPSILON, CLIP = 1e-4, 0.01, 1e-6, 1.0
Made = tuple[Callable[[int], float], Callable[[], int]]  # runs N steps and returns a loss; counts the weights after a step


def _dataset(batches: dict[str, np.ndarray]):
    """Return the batches in an endless loop, as TensorFlow reads them."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(batches).repeat().prefetch(1)


def _tensorflow(threads: int) -> None:
    """Set the same number of threads for every contender on TensorFlow."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _count(variables) -> int:
    """Count the values in TensorFlow's or Keras's variables."""
    return sum(int(np.prod(variable.shape)) for variable in variables)


def _in_turn(batches: dict[str, np.ndarray], step: Callable) -> Callable[[int], float]:
    """Call a tf.function N times on the next batches."""
    iterator = iter(_dataset(batches))

    def run(steps: int) -> float:
        losses = [step(next(iterator)) for _ in range(steps)]
        return float(losses[-1])

    return run


def ours(batches: dict[str, np.ndarray], threads: int, jit: bool = False) -> Made:
    """Ours, plain tf.function; last layer and logits at the 20 places and [CLS]; next-sentence head; accuracies."""
    _tensorflow(threads)
    import tensorflow as tf

    from clozemill.model.config import EncoderConfig
    from clozemill.trainers.engines import train_state
    from clozemill.trainers.engines.engine import COLUMNS, StepOptions
    from clozemill.trainers.engines.optimizer import Hyper, Schedule
    from clozemill.trainers.engines.tensorflow_step import Stepper

    config = EncoderConfig(VOCABULARY, WIDTH, LAYERS, HEADS, INNER, POSITIONS)
    made = train_state.make(config, "mlm+nsp", "float32", seed=0)
    hyper, schedule = Hyper(weight_decay=DECAY, epsilon=EPSILON, clip_norm=CLIP), Schedule(RATE, 1, 1_000_000)
    stepper = Stepper(tf.distribute.get_strategy(), made, StepOptions(schedule, hyper), jit=jit)
    iterator, done = iter(_dataset(batches)), 0
    weight = COLUMNS.index("masked_lm_weight")

    def run(steps: int) -> float:
        nonlocal done
        rows = stepper.train(iterator, tf.constant(done), tf.constant(steps)).numpy()
        done += steps
        return float(rows[-1, 0] / rows[-1, weight])

    return run, lambda: _count(made.model.trainable_variables)


def ours_jit(batches: dict[str, np.ndarray], threads: int) -> Made:
    """The same, compiled with XLA."""
    return ours(batches, threads, jit=True)


def ours_jax(batches: dict[str, np.ndarray], threads: int) -> Made:
    """The same on the engine jax."""
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

    from clozemill.model.config import EncoderConfig
    from clozemill.trainers.common.config import TrainingOptions
    from clozemill.trainers.engines import train_state
    from clozemill.trainers.engines.engine import COLUMNS, StepOptions, make_engine
    from clozemill.trainers.engines.optimizer import Hyper, Schedule

    config = EncoderConfig(VOCABULARY, WIDTH, LAYERS, HEADS, INNER, POSITIONS)
    made = train_state.make(config, "mlm+nsp", "float32", seed=0)
    hyper, schedule = Hyper(weight_decay=DECAY, epsilon=EPSILON, clip_norm=CLIP), Schedule(RATE, 1, 1_000_000)
    count, rows = batches["input_ids"].shape[:2]
    data = itertools.cycle([{name: values[at] for name, values in batches.items()} for at in range(count)])
    engine = make_engine(TrainingOptions(engine="jax"))
    trainer, done = engine.trainer(made, StepOptions(schedule, hyper), rows, lambda host, hosts, size: data), 0

    def run(steps: int) -> float:
        nonlocal done
        (*_, last), _ = trainer.run(done, steps)
        done += steps
        return float(last[0] / last[COLUMNS.index("masked_lm_weight")])

    return run, lambda: _count(made.model.trainable_variables)


def kerashub(batches: dict[str, np.ndarray], threads: int) -> Made:
    """BertBackbone + MaskedLMHead, plain tf.function, keras AdamW; logits at the 20 places; NO next-sentence head."""
    _tensorflow(threads)
    import keras
    import tensorflow as tf
    from keras_hub.layers import MaskedLMHead
    from keras_hub.models import BertBackbone

    backbone = BertBackbone(VOCABULARY, LAYERS, HEADS, WIDTH, INNER, DROPOUT, POSITIONS)
    head = MaskedLMHead(token_embedding=backbone.token_embedding, intermediate_activation=lambda x: keras.ops.gelu(x, True))
    head.build((None, None, WIDTH))
    both = {id(v): v for v in (*backbone.trainable_variables, *head.trainable_variables)}  # they share the embedding
    variables = [v for v in both.values() if "pooled_dense" not in v.path]  # the pooler isn't used, so it has no gradient
    optimizer = keras.optimizers.AdamW(RATE, DECAY, epsilon=EPSILON, global_clipnorm=CLIP)
    optimizer.exclude_from_weight_decay(var_names=["bias", "layer_norm"])
    optimizer.build(variables)

    @tf.function
    def step(batch):
        names = {"token_ids": "input_ids", "padding_mask": "input_mask", "segment_ids": "segment_ids"}
        with tf.GradientTape() as tape:
            sequence = backbone({name: batch[ours] for name, ours in names.items()}, training=True)["sequence_output"]
            logits = head(sequence, batch["masked_lm_positions"])
            losses = keras.ops.sparse_categorical_crossentropy(batch["masked_lm_ids"], logits, from_logits=True)
            weights = batch["masked_lm_weights"]
            loss = tf.reduce_sum(losses * weights) / tf.reduce_sum(weights)
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    return _in_turn(batches, step), lambda: _count(variables)


def garden(batches: dict[str, np.ndarray], threads: int) -> Made:
    """BertPretrainerV2, plain tf.function, its AdamWeightDecay; logits at the 20 places; next-sentence head."""
    _tensorflow(threads)
    import tensorflow as tf
    import tf_keras
    from official.modeling import tf_utils
    from official.modeling.optimization.legacy_adamw import AdamWeightDecay
    from official.nlp.modeling import layers, models, networks

    gelu, initializer = tf_utils.get_activation("gelu"), tf_keras.initializers.TruncatedNormal(stddev=0.02)
    encoder = networks.BertEncoderV2(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_layers=LAYERS, num_attention_heads=HEADS, inner_dim=INNER,
        max_sequence_length=POSITIONS, inner_activation=gelu, output_dropout=DROPOUT, attention_dropout=DROPOUT,
        initializer=initializer,
    )  # fmt: skip
    head = layers.ClassificationHead(inner_dim=WIDTH, num_classes=2, dropout_rate=DROPOUT, name="next_sentence")
    model = models.BertPretrainerV2(encoder, mlm_activation=gelu, mlm_initializer=initializer, classification_heads=[head])
    no_decay = ["LayerNorm", "layer_norm", "bias"]
    optimizer = AdamWeightDecay(RATE, epsilon=EPSILON, weight_decay_rate=DECAY, exclude_from_weight_decay=no_decay)
    cross_entropy = tf_keras.losses.sparse_categorical_crossentropy
    names = {"input_word_ids": "input_ids", "input_mask": "input_mask", "input_type_ids": "segment_ids"}

    @tf.function
    def step(batch):
        inputs = {name: batch[ours] for name, ours in names.items()}
        with tf.GradientTape() as tape:
            outputs = model({**inputs, "masked_lm_positions": batch["masked_lm_positions"]}, training=True)
            losses = cross_entropy(batch["masked_lm_ids"], outputs["mlm_logits"], from_logits=True)
            weights = batch["masked_lm_weights"]
            loss = tf.reduce_sum(losses * weights) / tf.reduce_sum(weights)
            answers = cross_entropy(batch["next_sentence_labels"], outputs["next_sentence"], from_logits=True)
            total = loss + tf.reduce_mean(answers)
        variables = model.trainable_variables
        pairs = zip(tape.gradient(total, variables), variables, strict=True)
        optimizer.apply_gradients([pair for pair in pairs if pair[0] is not None])  # its encoder's own pooler has none
        return loss

    return _in_turn(batches, step), lambda: _count(model.trainable_variables)


def _torch_optimizer(model):
    """AdamW in its fused form, without decay for biases and LayerNorm."""
    import torch

    slim = {name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name}
    groups = [
        {"params": [p for name, p in model.named_parameters() if (name in slim) == is_slim], "weight_decay": decay}
        for is_slim, decay in ((True, 0.0), (False, DECAY))
    ]
    return torch.optim.AdamW(groups, lr=RATE, eps=EPSILON, fused=True)


def _torch_loss(model, batch: dict, everywhere: bool):
    """The loss by the model's own forward, or by its modules with logits at the masked tokens only."""
    import torch
    from torch.nn.functional import cross_entropy

    real = batch["masked_lm_weights"].bool()
    rows, positions = torch.nonzero(real)[:, 0], batch["masked_lm_positions"][real]
    words, follows = batch["masked_lm_ids"][real], batch["next_sentence_labels"]
    inputs = {"attention_mask": batch["input_mask"], "token_type_ids": batch["segment_ids"]}
    if everywhere:
        labels = torch.full_like(batch["input_ids"], -100)
        labels[rows, positions] = words
        return model(batch["input_ids"], **inputs, labels=labels, next_sentence_label=follows).loss
    sequence, pooled = model.bert(batch["input_ids"], **inputs)[:2]
    logits, answers = model.cls(sequence[rows, positions], pooled)
    return cross_entropy(logits, words) + cross_entropy(answers, follows)


def _hugging_face(batches: dict[str, np.ndarray], threads: int, attention: str, everywhere: bool = False) -> Made:
    """BertForPreTraining on torch, with fused AdamW."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    torch.set_num_threads(threads)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER,
        max_position_embeddings=POSITIONS, hidden_act="gelu_new", hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT, attn_implementation=attention,
    )  # fmt: skip
    model = BertForPreTraining(config).train()
    optimizer = _torch_optimizer(model)
    tensors = {name: torch.from_numpy(value.astype(np.int64)) for name, value in batches.items()}
    done = 0

    def run(steps: int) -> float:
        nonlocal done
        for _ in range(steps):
            loss = _torch_loss(model, {name: value[done % len(value)] for name, value in tensors.items()}, everywhere)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
        return loss.item()

    return run, lambda: sum(p.numel() for p in model.parameters())


def hf_sdpa(batches: dict[str, np.ndarray], threads: int) -> Made:
    """BertForPreTraining's modules, sdpa (its default); logits at the REAL masked tokens only; next-sentence head."""
    return _hugging_face(batches, threads, "sdpa")


def hf_eager(batches: dict[str, np.ndarray], threads: int) -> Made:
    """The same with eager attention."""
    return _hugging_face(batches, threads, "eager")


def hf_stock(batches: dict[str, np.ndarray], threads: int) -> Made:
    """BertForPreTraining as it is, sdpa; logits at all positions; next-sentence head."""
    return _hugging_face(batches, threads, "sdpa", everywhere=True)


CONTENDERS: dict[str, Callable[..., Made]] = {
    "ours": ours,
    "ours-jit": ours_jit,
    "ours-jax": ours_jax,
    "kerashub": kerashub,
    "garden": garden,
    "hf-sdpa": hf_sdpa,
    "hf-eager": hf_eager,
    "hf-stock": hf_stock,
}
DEFAULT = ["ours", "kerashub", "garden", "hf-sdpa", "hf-eager"]


def _versions() -> str:
    """The libraries that are loaded, with their versions."""
    names = ("tensorflow", "jax", "keras", "keras_hub", "tf_keras", "torch", "transformers")
    return ", ".join(f"{name} {sys.modules[name].__version__}" for name in names if name in sys.modules)


def _cpu_seconds() -> float:
    """User and system time of all threads of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Create a contender, run its first step, then a round of steps for every input line."""
    name, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to standard error
    os.dup2(2, 1)
    run, weights = CONTENDERS[name](dict(np.load(path)), threads)
    run(1)
    print(json.dumps({"weights": weights(), "versions": _versions()}), file=answers, flush=True)
    for line in sys.stdin:
        cpu_s, wall_s = _cpu_seconds(), time.perf_counter()
        loss = run(int(line))
        figures = {"cpu_s": _cpu_seconds() - cpu_s, "wall_s": time.perf_counter() - wall_s, "loss": loss}
        print(json.dumps(figures), file=answers, flush=True)


if __name__ == "__main__":
    main()
