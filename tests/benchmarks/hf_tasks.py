"""The peer of padding.py: fine-tuning, predicting and extracting features in a plain transformers loop on torch.

Batches come in the order of a sampler and are padded to their longest row (DataCollatorWithPadding), as in transformers' own
examples. It is a separate process, run by an interpreter that has transformers and torch, and doesn't import clozemill.

    HF_PYTHON tests/benchmarks/hf_tasks.py finetune FOLDER 2
"""

import csv
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)


def read_texts(path: Path) -> tuple[list[str], list[int]]:
    """The columns text and label of a TSV."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["text"] for row in rows], [int(row["label"]) for row in rows]


class Job:
    """The settings, the tokenizer, and batches padded to their longest row, shared by all commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = json.loads((folder / "settings.json").read_text())
        self.tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True)
        self.collate = DataCollatorWithPadding(self.tokenizer)
        torch.manual_seed(0)
        random.seed(0)

    def config(self) -> BertConfig:
        return BertConfig(**self.settings["encoder"], num_labels=2)

    def batches(self, name: str, size: int, shuffled: bool = False) -> Iterator[dict]:
        texts, labels = read_texts(self.folder / name)
        encoded = self.tokenizer(texts, truncation=True, max_length=self.settings["max_seq_length"])
        rows = [{key: encoded[key][number] for key in encoded} | {"labels": label} for number, label in enumerate(labels)]
        order = list(range(len(rows)))
        if shuffled:
            random.shuffle(order)
        for begin in range(0, len(order), size):
            yield self.collate([rows[number] for number in order[begin : begin + size]])


def finetune(job: Job) -> None:
    """One epoch of AdamW, then the accuracy on the dev file."""
    model = BertForSequenceClassification(job.config())
    rows = len(read_texts(job.folder / "train.tsv")[0])
    steps = -(-rows // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    for batch in job.batches("train.tsv", 32, shuffled=True):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    with torch.no_grad():
        right = [model(**b).logits.argmax(-1).eq(b["labels"]).float().mean() for b in job.batches("dev.tsv", 32)]
    print(f"accuracy {np.mean(right):.3f}")
    model.save_pretrained(job.folder / "hf-model")


def predict(job: Job) -> None:
    """Labels and probabilities as JSON lines."""
    model = BertForSequenceClassification(job.config()).eval()
    with torch.no_grad(), open(job.folder / "hf.jsonl", "w") as file:
        for batch in job.batches("texts.tsv", 64):
            del batch["labels"]
            for row in model(**batch).logits.softmax(-1).tolist():
                file.write(json.dumps({"label": int(row[1] > row[0]), "probabilities": row}) + "\n")


def embed(job: Job, pooled: bool) -> None:
    """Write the last four layers, concatenated, of each token (or their mean over a text) as Parquet."""
    model = BertModel(job.config(), add_pooling_layer=False).eval()
    width = 4 * job.settings["encoder"]["hidden_size"]
    schema = pa.schema([("row", pa.int64()), ("token", pa.string()), ("features", pa.list_(pa.float32(), width))])
    number = 0
    with torch.no_grad(), pq.ParquetWriter(job.folder / "hf.parquet", schema) as writer:
        for batch in job.batches("texts.tsv", 64):
            del batch["labels"]
            layers = model(**batch, output_hidden_states=True).hidden_states[-4:]
            hidden, mask = torch.cat(layers, -1), batch["attention_mask"].bool()
            rows = torch.arange(number, number + len(mask))
            number += len(mask)
            if pooled:
                values, numbers = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True), rows
                tokens = [""] * len(rows)
            else:
                mask &= (batch["input_ids"] != job.tokenizer.cls_token_id) & (batch["input_ids"] != job.tokenizer.sep_token_id)
                values, numbers = hidden[mask], rows[:, None].expand(mask.shape)[mask]
                tokens = job.tokenizer.convert_ids_to_tokens(batch["input_ids"][mask].tolist())
            features = pa.FixedSizeListArray.from_arrays(pa.array(values.numpy().reshape(-1)), width)
            writer.write_table(pa.table([pa.array(numbers.numpy()), pa.array(tokens), features], schema=schema))


VERBS = {
    "finetune": finetune,
    "predict": predict,
    "embed": lambda job: embed(job, False),
    "embed, mean": lambda job: embed(job, True),
}

if __name__ == "__main__":
    start = time.process_time()
    torch.set_num_threads(int(sys.argv[3]))
    VERBS[sys.argv[1]](Job(Path(sys.argv[2])))
    print(json.dumps({"start": start, "all": time.process_time()}))
