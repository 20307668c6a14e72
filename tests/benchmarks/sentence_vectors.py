"""Sentence vectors before and after `contrast`, on held-out graded pairs and halves of texts, several encoders.

    python -m tests.benchmarks.sentence_vectors --init RUN RUN RUN --leads vital-articles.jsonl.gz --novels novels.jsonl.gz \
        --output FOLDER

The texts are leads of Wikipedia articles and paragraphs of novels. Of the leads, 500 are held out for a choice of settings
(`--split dev`) and 500 for the result (`--split test`): their first halves have to find their second halves. The graded pairs
of the two splits are `pairs.tsv` and `held_out_pairs.tsv` of tests/trainers/contrast. Intervals are of a bootstrap over the
pairs or texts, of the mean difference to mean pooling over all encoders.
"""

import argparse
import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sentencex import segment

import clozemill
from clozemill.trainers.finetuning.tasks.similarity import shared_words

PAIRS = Path(__file__).parents[1] / "trainers/contrast"
FILES = {"dev": "pairs.tsv", "test": "held_out_pairs.tsv"}
HELD_OUT, WORDS = 500, 40  # texts per split, and the fewest words of each
PARAGRAPHS, CANDIDATES, PARAGRAPH = 20_000, 60_000, 30  # of novels: number, to choose from, fewest words
RESAMPLES = 2000
# What is trained, by the row of the table: the texts and further options.
TRAINED = {
    "contrast, dropout, sentences": ("sentences", {"epochs": 0.5}),
    "contrast, crop, paragraphs": (
        "paragraphs",
        {"positives": "crop", "epochs": 2, "batch_size": 128, "dropout": 0, "attention_dropout": 0},
    ),
}
Embed = Callable[[Sequence[str]], np.ndarray]


def lines(path: str) -> list[str]:
    """The texts of a JSONL file, each in one line."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def prepared(leads: str, novels: str, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Write the training texts, and return the halves of the held-out leads by split."""
    texts = [text for each in lines(leads) if (text := " ".join(each.split()))]
    chance = random.Random(1)
    long = [number for number, text in enumerate(texts) if len(text.split()) >= WORDS]
    chance.shuffle(long)
    parts = {"dev": long[:HELD_OUT], "test": long[HELD_OUT : 2 * HELD_OUT]}
    out = {*parts["dev"], *parts["test"]}
    train = [text for number, text in enumerate(texts) if number not in out]
    documents, paragraphs = lines(novels), list[str]()
    chance.shuffle(documents)
    for document in documents:
        found = (" ".join(paragraph.split()) for paragraph in document.split("\n"))
        paragraphs += [paragraph for paragraph in found if len(paragraph.split()) >= PARAGRAPH]
        if len(paragraphs) > CANDIDATES:
            break
    chance.shuffle(paragraphs)
    mixed = train + paragraphs[:PARAGRAPHS]
    chance.shuffle(mixed)
    sentences = [one.strip() for text in train for one in segment("en", text) if len(one.split()) >= 4]
    for name, rows in (("sentences", sentences), ("paragraphs", mixed)):
        (folder / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows), "utf-8")
    return {
        split: [(" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :]))
                for words in (texts[number].split() for number in numbers)]
        for split, numbers in parts.items()
    }  # fmt: skip


def embedder(run: str, transform: Callable[[np.ndarray], np.ndarray] = np.asarray, **options: str) -> Embed:
    """Return the function that makes vectors of length 1 of texts."""

    def vectors(texts: Sequence[str]) -> np.ndarray:
        rows = clozemill.embed(run, list(texts), max_seq_length=128, **options)
        found = transform(np.array([row["features"] for row in rows], np.float64))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return vectors


def whitening(sample: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that whitens vectors by the mean and covariance of a sample (Su et al. 2021)."""
    mean = sample.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov((sample - mean).T))
    scaled = axes / np.sqrt(values + 1e-9)
    return lambda vectors: (vectors - mean) @ scaled


def flat(pairs: Sequence[Sequence[str]]) -> list[str]:
    return [text for pair in pairs for text in pair[:2]]


def found_halves(similarities: np.ndarray) -> np.ndarray:
    """Return for each text whether its second half is the nearest one, bool [N]. similarities: of all halves, [N, N]."""
    return similarities.argmax(axis=1) == np.arange(len(similarities))


def of_vectors(embed: Embed, pairs: list[list[str]], halves: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines of the pairs, and which halves are found."""
    ours, theirs = embed(flat(pairs)), embed(flat(halves))
    return (ours[0::2] * ours[1::2]).sum(axis=1), found_halves(theirs[0::2] @ theirs[1::2].T)


def of_words(pairs: list[list[str]], halves: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the same of a comparison of words."""
    words = [[set(re.findall(r"\w+", half.casefold())) for half in both] for both in halves]
    shares = [[len(one & other) / len(one | other) for _, other in words] for one, _ in words]
    return np.array([shared_words(*pair[:2]) for pair in pairs]), found_halves(np.array(shares))


def correlation(cosines: np.ndarray, grades: np.ndarray) -> float:
    return float(spearmanr(cosines, grades)[0])


def interval(
    measure: Callable[[np.ndarray, np.ndarray], float], ours: np.ndarray, base: np.ndarray, given: np.ndarray
) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference of two rows of the table, [seeds, N] each; given: [N]."""
    chance, differences = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        rows = chance.integers(0, len(given), len(given))
        each = [
            measure(one[rows], given[rows]) - measure(other[rows], given[rows]) for one, other in zip(ours, base, strict=True)
        ]
        differences.append(np.mean(each))
    return float(np.quantile(differences, 0.025)), float(np.quantile(differences, 0.975))


def row(name: str, results: list[tuple[np.ndarray, np.ndarray]], base: list[tuple[np.ndarray, np.ndarray]], grades) -> str:
    """Return a row of the table: both measures as mean and standard deviation, with intervals of the differences to `base`."""
    cells = [name]
    for at, measure in enumerate((correlation, lambda found, _: float(found.mean()))):
        given = grades if at == 0 else np.zeros(len(results[0][1]))
        ours, theirs = (np.array([each[at] for each in rows]) for rows in (results, base))
        scores = [measure(each, given) for each in ours]
        low, high = interval(measure, ours, theirs, given)
        spread = f" ± {np.std(scores, ddof=1):.3f}" if len(scores) > 1 else ""
        cells += [f"{np.mean(scores):.3f}{spread}", f"{low:+.3f} to {high:+.3f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", nargs="+", required=True)
    for name in ("leads", "novels", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--split", choices=FILES, default="test")
    given = parser.parse_args()
    folder = Path(given.output)
    folder.mkdir(parents=True, exist_ok=True)
    halves = prepared(given.leads, given.novels, folder)[given.split]
    pairs = [line.split("\t") for line in (PAIRS / FILES[given.split]).read_text("utf-8").splitlines()]
    grades = np.array([float(pair[2]) for pair in pairs])
    sample = (folder / "sentences.txt").read_text("utf-8").splitlines()[:4000]
    results: dict[str, list] = {"mean pooling": [], "share of words in common": [], "mean pooling, whitened": []}
    for seed, init in enumerate(given.init, 1):
        plain = {"pool": "mean", "layers": "-1"}
        whitened = whitening(embedder(init, **plain)(sample))
        results["mean pooling"].append(of_vectors(embedder(init, **plain), pairs, halves))
        results["share of words in common"].append(of_words(pairs, halves))
        results["mean pooling, whitened"].append(of_vectors(embedder(init, whitened, **plain), pairs, halves))
        for name, (texts, options) in TRAINED.items():
            run = folder / f"{re.sub('[^a-z]+', '-', name)}-{seed}"
            clozemill.contrast(
                init=init, input=str(folder / f"{texts}.txt"), output=str(run), seed=seed, tensorboard=False, **options
            )
            results.setdefault(name, []).append(of_vectors(embedder(str(run)), pairs, halves))
            print(seed, name, correlation(results[name][-1][0], grades), results[name][-1][1].mean(), flush=True)
    print("| | graded pairs | difference | halves found | difference |\n|---|---|---|---|---|")
    print("\n".join(row(name, each, results["mean pooling"], grades) for name, each in results.items()))


if __name__ == "__main__":
    main()
