"""A file laid out as SQuAD's, of several hundred questions in many scripts, and the rules by which SQuAD is evaluated."""

import collections
import re
import string
import unicodedata

import numpy as np

from clozemill.pipelines.text.vocabulary import Vocabulary

# Sentences with an answer between braces: whole words, parts of words, and places where scripts write no spaces.
SENTENCES = (
    "The {watermill} at the river was built in {1872}.",
    "It burned down in the {1980}s, and {20}km of fence were lost.",
    "{Marie-Claire} O'{Neil} paid ${4.5}m for {three} wheels.",
    "물방앗간은 {1872년}에 {강가}에 세워졌다.",
    "주인은 {파리}에서 왔다.",
    "{パリ}にある水車小屋は{セーヌ}のそばにたっている。",
    "東京の{水車}は{千八百七十二年}に建てられた。",
    "โรงสีน้ำตั้งอยู่ริม{แม่น้ำปิง}ใน{เชียงใหม่}",
    "Die {Wasser}mühlen{besitzer} hießen {Groß} und {Müller}.",
    "Le {café} {na\u00efve} et l'{e\u0301le\u0301phant} d\u00e9j\u00e0 vu.",  # accents in both forms
    "{İstanbul}'da {ığdır} ve {ΣΟΦΟΣ} {ὁδός}.",
    "{Москва} и {подъезд}ы, {ёлка}.",
    "مطحنة في {القاهرة} و{بغداد}.",
    "नदी के किनारे {चक्की} है।",
    "🎉 {😀👍🏽} and {👩\u200d👩\u200d👧} came{❤\ufe0f}.",
    "The \ufb01rst {e\ufb03cient} {H\u2082O} {x\u00b2}-pump\u2026",
)
MARK = re.compile("[{}]")


def _plain(sentence: str) -> tuple[str, list[tuple[str, int]]]:
    """A sentence without its braces, and the answers (text, place) that were in them."""
    answers, text = [], ""
    for number, part in enumerate(MARK.split(sentence)):
        if number % 2:
            answers.append((part, len(text)))
        text += part
    return text, answers


def questions(count: int, seed: int = 0, unanswered: float = 0.0) -> dict:
    """SQuAD's JSON with so many questions; `unanswered`: the share without an answer (SQuAD 2.0)."""
    stream, paragraphs, number = np.random.default_rng(seed), [], 0
    while number < count:
        context, answers = "", []
        for sentence in stream.choice(np.array(SENTENCES), stream.integers(2, 6)):
            text, found = _plain(str(sentence))
            answers += [(answer, len(context) + place) for answer, place in found]
            context += text + str(stream.choice(np.array([" ", "\n", "  "])))
        asked = []
        for text, place in answers[: count - number]:
            none = stream.random() < unanswered
            right = [] if none else [{"text": text, "answer_start": place}]
            if right and stream.random() < 0.3:  # of several people's answers the best counts
                right.append({"text": context[place : place + len(text) + 1].rstrip(), "answer_start": place})
            asked.append({"id": f"q{number}", "question": f"What is number {number}?", "answers": right})
            asked[-1] |= {"is_impossible": none} if unanswered else {}
            number += 1
        paragraphs.append({"context": context, "qas": asked})
    return {"version": "v2.0" if unanswered else "1.1", "data": [{"title": "Mills", "paragraphs": paragraphs}]}


def vocabulary(data: dict, cased: bool) -> Vocabulary:
    """All characters of a file, alone and within words, and a few longer pieces."""
    text = "".join(part for paragraph in data["data"][0]["paragraphs"] for part in
                   (paragraph["context"], *(asked["question"] for asked in paragraph["qas"])))  # fmt: skip
    text = unicodedata.normalize("NFC", text) if cased else unicodedata.normalize("NFD", text.lower())
    chars = sorted({char for char in text if not char.isspace()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = ["198", "##0", "20", "the", "##er", "##mill", "was", "##ser", "セー", "##ヌ", "##にある", "##에서"]
    return Vocabulary.from_tokens(list(dict.fromkeys([*special, *chars, *(f"##{char}" for char in chars), *pieces])))


def normalize_answer(text: str) -> str:
    """The official script's."""
    text = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _f1(gold: str, given: str, version: int) -> float:
    gold_tokens, given_tokens = normalize_answer(gold).split(), normalize_answer(given).split()
    if version == 2 and (not gold_tokens or not given_tokens):
        return float(gold_tokens == given_tokens)
    same = sum((collections.Counter(gold_tokens) & collections.Counter(given_tokens)).values())
    if not same:
        return 0.0
    precision, recall = same / len(given_tokens), same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def official(data: dict, predictions: dict[str, str]) -> dict[str, float]:
    """evaluate-v1.1.py or, for a file of that version, evaluate-v2.0.py: exact_match and f1 in [0, 1]."""
    version, exact, f1 = 2 if data["version"] == "v2.0" else 1, [], []
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                golds = [answer["text"] for answer in asked["answers"]]
                if version == 2:
                    golds = [gold for gold in golds if normalize_answer(gold)] or [""]
                given = predictions[asked["id"]]
                exact.append(max(float(normalize_answer(gold) == normalize_answer(given)) for gold in golds))
                f1.append(max(_f1(gold, given, version) for gold in golds))
    return {"exact_match": sum(exact) / len(exact), "f1": sum(f1) / len(f1)}
