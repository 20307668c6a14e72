import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.sentence_languages import KNOWN, language_warning
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.sentences import MAX_CHARS, MAX_PARAGRAPH, SPLITTERS, lines, split
from tests.slow import mostly_slow

PIECES = [
    *"aÉ中Σ.!?…\"'“”‘’«»()[];:,—-1\n 🙂\u0301।。؟",
    "Mr. ",
    "e.g. ",
    "U.S. ",
    "J. ",
    ". ",
    "? ",
    "” ",
    "word ",
    "x" * 300,
    "p. 3 ",
    *"។៕ក្ខ།་ཀ་ྱกเำ่ๆ。？，、」字かー",
    "ไทย ",
    "字" * 300,
    "ខ" * 300,
    "🇩🇪",
    "👍🏽",
]
RAW = st.one_of(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.text(max_size=60))


def cut(text: str, splitter: str = "sentencex", language: str = "en") -> list[str]:
    return [text[low:high] for low, high in split(text, splitter, language)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One is here. Two is there! Is three? Yes.", ["One is here.", "Two is there!", "Is three?", "Yes."]),
        (
            "Dr. Smith met Mrs. Jones at 3.30 p.m. today. They left.",
            ["Dr. Smith met Mrs. Jones at 3.30 p.m. today.", "They left."],
        ),
        ("See e.g. the U.S. and J. R. R. Tolkien. It ends.", ["See e.g. the U.S. and J. R. R. Tolkien.", "It ends."]),
        ("It costs 3.50 euros. Visit example.org now.", ["It costs 3.50 euros.", "Visit example.org now."]),
        ("A heading\nA paragraph. And more\nlast", ["A heading", "A paragraph.", "And more", "last"]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_literal(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


def test_every_splitter() -> None:
    text = "One is here. Two is there.\nThree."
    expected = {"sentencex": ["One is here.", "Two is there.", "Three."], "none": ["One is here. Two is there.", "Three."]}
    assert {name: cut(text, name) for name in SPLITTERS} == expected


def test_languages() -> None:
    assert cut("Das ist z.B. gut. Ja.", language="de") == ["Das ist z.B. gut.", "Ja."]
    assert cut("これは本です。はい。", language="ja") == ["これは本です。", "はい。"]
    assert cut("One is here. Two.", language="xx") == ["One is here.", "Two."]  # unknown: general rules


@pytest.mark.parametrize(
    "text",
    [
        "『是！』|他走了。",
        "〔是！〕|〈是！〉|《是！》|他走了。",
        "﹃是！﹄|﹁是！﹂|他走了。",
        "他走了。|＂是！去。＂|他走了。",
        "「『行くよ。』と言った。」|彼は。",
        "「行くよ。」、|彼は言った。",
        "“走吧。”，|然后走。|・他走了。",
        "བོད་༼བོད།༽| བོད།",
        "မြန်မာနိုင်ငံသည်၊ ကြီးမားသည်။| မြန်မာ။",
        "দাম ৩.৫ টাকা।| এটা বই।",
        "दाम ३.५ है।| यह 3.5 है।",
        "قال ٣.٥ نعم؟| نعم.",
        "ይህ መጽሐፍ ነው፡፡| ይህ፡መጽሐፍ ነው።| ይህ ፡፡፡ ነው",
    ],
)
@pytest.mark.parametrize("language", ["en", "zh", "my"])
def test_marks_unknown_to_sentencex(text: str, language: str) -> None:
    """Sentences are separated by |."""
    assert cut(text.replace("|", ""), language=language) == [sentence.strip() for sentence in text.split("|")]


@pytest.mark.parametrize("language", ["en", "zh", "xx"])
@pytest.mark.parametrize("splitter", SPLITTERS)
@given(raw=RAW)
@settings(max_examples=100, deadline=None)
@example(raw="")
@example(raw="x" * (3 * MAX_CHARS))
@example(raw=("“" + "It went on and on. " * 200 + "”") * 3)
@example(raw=". " * 2 * MAX_CHARS)
@example(raw="." * 2 * MAX_CHARS + " a")
@example(raw="é" * (MAX_CHARS - 1) + " b")
@example(raw="ក្" * MAX_CHARS)
@example(raw="字" * (MAX_CHARS - 1) + "。" * 9 + "」字" * MAX_CHARS)
def test_spans_cover_all_text_in_order(raw: str, splitter: str, language: str) -> None:
    text = clean(raw)
    spans = split(text, splitter, language)
    covered, end = [], 0
    for low, high in spans:
        assert end <= low < high <= len(text)
        assert text[end:low].strip() == ""
        assert text[low:high] == text[low:high].strip()
        assert "\n" not in text[low:high]
        assert high - low <= MAX_CHARS
        covered.append(text[low:high])
        end = high
    assert text[end:].strip() == ""
    assert "".join("".join(covered).split()) == "".join(text.split())


def test_quoted_speech_is_cut_at_sentences() -> None:
    speech = "“" + " ".join(f"Sentence number {number} of the speech, as long as most." for number in range(40)) + "”"
    sentences = cut(f"He rose. {speech} She left.")
    assert sentences[0] == "He rose." and sentences[-1].endswith("She left.")
    assert len(sentences) > 3
    assert all(sentence[-1] in ".”" for sentence in sentences)
    assert " ".join(sentences) == f"He rose. {speech} She left."


@pytest.mark.parametrize(
    ("unit", "ending"),
    [
        ("eleven chars ending here. ", "."),
        ("only clauses here, ", ","),
        ("only words here and ", ""),
        ("Oh no?!” he said then, ", "?!”"),
    ],
)
def test_long_sentences_are_cut_at_the_best_boundary(unit: str, ending: str) -> None:
    sentences = cut(clean(unit * 100), "none")
    assert len(sentences) >= 100 * len(unit) // MAX_CHARS
    assert all(sentence.endswith(ending) for sentence in sentences[:-1])
    assert all(len(sentence) > MAX_CHARS // 2 for sentence in sentences[:-1])
    assert " ".join(sentences) == clean(unit * 100)


@pytest.mark.parametrize(
    ("unit", "count"),
    [
        ("នេះជាប្រយោគទីមួយ។ ", 60),
        ("គាត់និយាយថា «បាទ។» ", 60),
        ("ทางรถไฟสายนี้ยาวมาก ", 60),
        ("ທາງລົດໄຟຍາວຫຼາຍ ", 60),
        ("འདི་ནི་དཔེ་ཆ་ཡིན། ", 80),
        ("ཁོང་གིས་བཤད། །", 80),
        ("ဒီစာအုပ်ကောင်းတယ်။ ", 60),
        ("ይህ መጽሐፍ ነው። ", 60),
        ("यह किताब है। ", 60),
        ("এটা একটা বই।", 60),
        ("یہ کتاب ہے۔ ", 60),
        ("Սա գիրք է։ ", 60),
        ("ეს წიგნია. ", 60),
        ("これは本です。", 60),
    ],
)
@pytest.mark.parametrize("language", ["en", "km"])
def test_sentence_ends_of_every_script(unit: str, count: int, language: str) -> None:
    """For any --sentence-language, because the script is detected in the paragraph."""
    assert len(cut(clean(unit * count), language=language)) == count


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("เมื่อ พ.ศ. 2475 มีการเปลี่ยนแปลง ดร. สมชาย มาก ๆ", ["เมื่อ", "พ.ศ. 2475 มีการเปลี่ยนแปลง", "ดร. สมชาย", "มาก ๆ"]),
        ("แม่น้ำนี้ (Ping River) ยาวมาก! จริงหรือ? จริง", ["แม่น้ำนี้ (Ping River) ยาวมาก!", "จริงหรือ?", "จริง"]),
        ("ປະເທດລາວຢູ່ໃນອາຊີ. ມີປະຊາກອນ 7 ລ້ານຄົນ", ["ປະເທດລາວຢູ່ໃນອາຊີ.", "ມີປະຊາກອນ 7 ລ້ານຄົນ"]),
        ("A town (Tibetan: གྲོང་ཁྱེར། བོད།) is here. It is old.", ["A town (Tibetan: གྲོང་ཁྱེར། བོད།) is here.", "It is old."]),
    ],
)
def test_scripts_with_our_rules(text: str, sentences: list[str]) -> None:
    assert cut(text, language="en") == sentences


@pytest.mark.parametrize(
    ("unit", "end", "ending"),
    [
        ("今天的天气好我们去公园散步吧。", "”", "。"),
        ("なんてこった！ほんとうですか？", "”", "！？"),
        ("我们去公园散步，", "”", "，"),
        ("我不知道……你呢", "”", "…"),
        ("これは本、それはペン；", "”", "、；"),
        ("यह किताब है।", "”", "।"),
        ("یہ کتاب ہے۔ ", "”", "۔"),
        ("ይህ መጽሐፍ ነው። ", "”", "።"),
        ("Սա գիրք է։ ", "”", "։"),
        ("ဒီစာအုပ်ကောင်းတယ်။", "”", "။"),
        ("这本书叫 iPhone，", "”", "，"),
    ],
)
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_long_quotations_are_cut_after_marks_of_every_script(splitter: str, unit: str, end: str, ending: str) -> None:
    text = clean("“" + unit * 100 + end)
    sentences = cut(text, splitter, "zh")
    assert "".join("".join(sentences).split()) == "".join(text.split()) and len(sentences) >= len(text) // MAX_CHARS
    assert all(sentence[-1] in ending and len(sentence) > 500 for sentence in sentences[:-1])


def test_a_mark_keeps_its_closing_brackets() -> None:
    sentences = cut("「" + "そうです。」（はい。）" * 100, "none")
    assert all(sentence.endswith(("。」", "。）")) for sentence in sentences)


@pytest.mark.parametrize("paragraph", ["今天的天气好我们去公园散步吧。", "私は、本を、読む、"])
def test_long_paragraphs_are_cut_after_marks(paragraph: str) -> None:
    text = paragraph * (3 * MAX_PARAGRAPH // len(paragraph))
    assert all(sentence[-1] in "。、" for sentence in cut(text, language="zh"))


@pytest.mark.parametrize(
    ("unit", "whole"),
    [
        ("ក្ខា", "ក្ខា"),
        ("น้ำเก่าแก่", "น้ำ|เก่|า|แก่"),
        ("क्षत्रि", "क्ष|त्रि"),
        ("e\u0301\u0323x", "ẹ\u0301|x"),
        ("👍🏽", "👍🏽"),
        ("🇩🇪", "🇩🇪"),
        ("字iPhone15", "字|iPhone15"),
    ],
)
def test_cuts_without_a_boundary_keep_characters_together(unit: str, whole: str) -> None:
    """`whole`: parts that must stay together, separated by |."""
    parts = [clean(part) for part in whole.split("|")]
    for shift in range(len(unit) + 1):
        left = "".join(cut("字" * shift + clean(unit * 300), "none"))
        for sentence in cut("字" * shift + clean(unit * 300), "none"):
            assert sentence.startswith(("字", *parts)) and sentence.endswith(("字", *parts))
            assert len(sentence) > MAX_CHARS - 12 or left.endswith(sentence)


def test_a_character_with_too_many_marks_is_cut() -> None:
    assert [len(sentence) for sentence in cut("字" + "\u0323" * 1300, "none")] == [MAX_CHARS, MAX_CHARS, 101]


def test_known_languages() -> None:
    assert {"en", "zh", "ja", "km", "bo", "th", "hi"} <= set(KNOWN)
    assert language_warning("sentencex", "en") == language_warning("none", "xx") == ""
    assert "--sentence-language xx: the sentence splitter has no rules for this language" in language_warning("sentencex", "xx")


def test_endless_words_are_cut_at_the_limit() -> None:
    assert [len(sentence) for sentence in cut("x" * (2 * MAX_CHARS + 7), "none")] == [MAX_CHARS, MAX_CHARS, 7]
    assert [len(sentence) for sentence in cut("x" * MAX_CHARS, "none")] == [MAX_CHARS]


ENDLESS = [
    "。",
    "『",
    "」、",
    "፡",
    "৩.",
    "」 ",
    "ก!",
    "ក ",
    ".",
    "“a.",
    "He said “hello. And so on. ",
    "...  ",
    "' ",
    "(",
    "a b. ",
    ".” ",
]


@pytest.mark.parametrize("unit", mostly_slow(ENDLESS, *ENDLESS[::4]))
def test_a_megabyte_in_one_paragraph(unit: str) -> None:
    """Takes up to a second or two each; in quadratic time it would take minutes."""
    text = clean(unit * (500_000 // len(unit)))
    assert len(split(text, "sentencex")) > len(text) // MAX_CHARS // 2


def test_long_paragraphs_lose_no_sentence() -> None:
    """By itself, sentencex finds fewer sentences the longer the paragraph is."""
    unit = "“Are you there?” he asked. Nobody said “yes to that. It was late; the lamp had gone out. "
    assert len(cut(unit * 2000)) > 0.95 * 20 * len(cut(unit * 100))


def test_lines_are_kept_unchanged() -> None:
    text = "One. Two.\n" + "x" * 1000 + "\nthree"
    assert [text[low:high] for low, high in lines(text)] == text.split("\n")
    assert lines("").tolist() == []
