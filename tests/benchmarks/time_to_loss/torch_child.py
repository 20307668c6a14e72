"""Runs one job with a model of transformers on torch, in the form that a careful user would write.

Logits are computed at masked positions only: ModernBertForMaskedLM does so with `sparse_prediction`, BertForPreTraining can't,
so its modules are called on the gathered positions. AdamW is the fused one. The batches come from clozemill's reader of numpy
arrays, without TensorFlow.

    HF_PYTHON -m tests.benchmarks.time_to_loss.torch_child JOB_FOLDER
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForPreTraining, ModernBertConfig, ModernBertForMaskedLM

import clozemill
from tests.benchmarks.time_to_loss.clock import StepClock, cpu_seconds
from tests.benchmarks.time_to_loss.curves import rate_factor
from tests.benchmarks.time_to_loss.jobs import CLOCK, RESULT, write_json

Batch = dict[str, torch.Tensor]
STATE = "state.pt"
STEPS_PER_CALL = 10  # as clozemill's loop: only the clock sees it


def bert(settings: dict[str, Any], vocabulary) -> torch.nn.Module:
    """Return BertForPreTraining with random weights; everything that isn't a size is transformers' default."""
    sizes = {name: value for name, value in settings["sizes"].items() if name != "modern_inner_size"}
    config = BertConfig(
        vocab_size=len(vocabulary.tokens), **sizes, pad_token_id=vocabulary.pad_id, attn_implementation=settings["attention"]
    )
    return BertForPreTraining(config)


def modernbert(settings: dict[str, Any], vocabulary) -> torch.nn.Module:
    """Return ModernBertForMaskedLM with random weights."""
    sizes = dict(settings["sizes"])
    sizes["intermediate_size"] = sizes.pop("modern_inner_size")
    ids = {name: vocabulary.tokens.index(token) for name, token in (("cls_token_id", "[CLS]"), ("sep_token_id", "[SEP]"))}
    config = ModernBertConfig(
        vocab_size=len(vocabulary.tokens), **sizes, **ids, pad_token_id=vocabulary.pad_id, bos_token_id=ids["cls_token_id"],
        eos_token_id=ids["sep_token_id"], attn_implementation=settings["attention"],
    )  # fmt: skip
    return ModernBertForMaskedLM(config)


def bert_logits(model, batch: Batch, where: tuple) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the logits at some (rows, positions), and those of the next sentence [B, 2]."""
    inputs = {"attention_mask": batch["input_mask"], "token_type_ids": batch["segment_ids"]}
    sequence, pooled = model.bert(batch["input_ids"], **inputs)[:2]
    return model.cls(sequence[where], pooled)


def modernbert_logits(model, batch: Batch, where: tuple) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the logits at some (rows, positions): what `sparse_prediction` computes."""
    sequence = model.model(batch["input_ids"], attention_mask=batch["input_mask"])[0]
    return model.decoder(model.head(sequence[where])), None


MODELS: dict[str, tuple[Callable, Callable]] = {"bert": (bert, bert_logits), "modernbert": (modernbert, modernbert_logits)}


def masked_loss(logits_of: Callable, model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the cross entropies at the masked tokens [N], and the logits of the next sentence."""
    real = batch["masked_lm_weights"].bool()
    where = torch.nonzero(real)[:, 0], batch["masked_lm_positions"][real]
    logits, answers = logits_of(model, batch, where)
    return cross_entropy(logits, batch["masked_lm_ids"][real], reduction="none"), answers


def padded_loss(logits_of: Callable, model, batch: Batch) -> torch.Tensor:
    """Return the training loss with logits at all places for predictions, so that shapes are static for the compiler."""
    weights = batch["masked_lm_weights"].float()
    rows = torch.arange(len(weights))[:, None].expand(weights.shape)
    logits, answers = logits_of(model, batch, (rows, batch["masked_lm_positions"]))
    each = cross_entropy(logits.flatten(0, 1), batch["masked_lm_ids"].flatten(), reduction="none")
    loss = (each * weights.flatten()).sum() / weights.sum()
    return loss if answers is None else loss + cross_entropy(answers, batch["next_sentence_labels"])


def training_loss(logits_of: Callable, model, batch: Batch) -> torch.Tensor:
    """Return the loss of a step."""
    each, answers = masked_loss(logits_of, model, batch)
    return each.mean() if answers is None else each.mean() + cross_entropy(answers, batch["next_sentence_labels"])


def tensors(batch: dict[str, np.ndarray]) -> Batch:
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in batch.items()}


def train_batches(dataset, size: int, seed: int) -> Iterator[Batch]:
    """Yield full batches without end: all copies, then again in another order."""
    copies = 1 + max(shard["copy"] for shard in dataset.manifest["shards"])
    for epoch in count():
        for batch in dataset.numpy_batches("train", size, epoch % copies, seed + epoch * 1000):
            if len(batch["input_ids"]) == size:
                yield tensors(batch)


def make_optimizer(model, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return fused AdamW, without decay for biases, norms and other vectors."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=tuple(settings["betas"]), eps=1e-6, fused=True)


@torch.no_grad()
def evaluate(logits_of: Callable, model, dataset) -> tuple[float, int]:
    """Return the mean loss of all masked tokens of the eval split, and their number."""
    model.eval()
    total, predictions = 0.0, 0
    for batch in dataset.numpy_batches("eval", 64):
        each = masked_loss(logits_of, model, tensors(batch))[0]
        total, predictions = total + float(each.double().sum()), predictions + len(each)
    model.train()
    return total / predictions, predictions


class Training:
    """A model, its optimizer, and the loop over the steps of a job. Every evaluation saves it: a killed job resumes exactly."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.job = folder, json.loads((folder / "job.json").read_text())
        self.settings, phase = self.job["settings"], self.job["phases"][0]
        self.data = clozemill.load_dataset(phase["data"])
        torch.manual_seed(self.job["seed"])
        make, self.logits_of = MODELS[self.settings["model"]]
        self.model = make(self.settings, self.data.vocabulary).train()
        self.optimizer = make_optimizer(self.model, self.settings)
        compiled = self.settings["compiled"]
        self.loss = torch.compile(padded_loss, dynamic=False) if compiled else training_loss
        self.steps, self.batch_size = phase["steps"], phase["batch_size"]
        self.done, self.predictions, self.evaluated = 0, 0, []
        self.clock = StepClock(folder / CLOCK)

    def save(self) -> None:
        """Save everything that determines the remaining steps."""
        part = self.folder / f"{STATE}.part"
        progress = {"done": self.done, "predictions": self.predictions, "evaluated": self.evaluated}
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "rng": torch.get_rng_state()}
        torch.save({**states, "progress": progress}, part)
        os.replace(part, self.folder / STATE)

    def resume(self) -> None:
        """Restore the state of a killed run, if there is one."""
        if (self.folder / STATE).exists():
            saved = torch.load(self.folder / STATE, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["rng"])
            for name, value in saved["progress"].items():
                setattr(self, name, value)
        self.clock.resume(self.done)

    def step(self, number: int, batch: Batch) -> float:
        """Run a step; return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.job["learning_rate"] * rate_factor(self.settings["schedule"], number, self.steps)
        loss = self.loss(self.logits_of, self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def run(self) -> dict[str, Any]:
        """Run all remaining steps; return the result of the job."""
        points, finite = self.job["points"], True
        every = -(-self.steps // points) if points else self.steps
        held_out = clozemill.load_dataset(self.job["eval_data"])
        self.resume()
        stream = islice(train_batches(self.data, self.batch_size, self.job["seed"]), self.done, None)
        while self.done < self.steps and finite:
            size = 1 if not self.done else min(STEPS_PER_CALL, self.steps - self.done, every - self.done % every)
            batches = list(islice(stream, size))
            begin = cpu_seconds()  # not with the reader, which is clozemill's: a user of torch may have a faster one
            losses = [self.step(self.done + number, batch) for number, batch in enumerate(batches)]
            self.clock.add(0, size, cpu_seconds() - begin)
            self.done, finite = self.done + size, all(map(math.isfinite, losses))
            if points and finite and (self.done % every == 0 or self.done == self.steps):
                loss, self.predictions = evaluate(self.logits_of, self.model, held_out)
                self.evaluated.append((self.done, loss))
                print(f"step {self.done:,}/{self.steps:,}  eval {loss:.4f}", flush=True)
                self.save()
        versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
        return self.clock.report(self.evaluated, diverged=not finite, versions=versions, predictions=self.predictions)


def main() -> None:
    """Run the job of a folder."""
    folder = Path(sys.argv[1])
    threads = json.loads((folder / "job.json").read_text())["threads"]
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(threads)
    training = Training(folder)
    result = training.run()
    if "tensorflow" in sys.modules:
        raise RuntimeError("the reader of numpy arrays loaded TensorFlow")
    if training.job["keep"]:
        training.model.save_pretrained(folder / "hf")
        (folder / "hf" / "vocab.txt").write_text("".join(f"{token}\n" for token in training.data.vocabulary.tokens), "utf-8")
    write_json(folder / RESULT, result)
    (folder / STATE).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
