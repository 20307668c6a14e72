"""The likely encoding of text that isn't UTF-8, for messages."""

import subprocess

import pytest

from clozemill.pipelines.files.likely_encoding import CANDIDATES, conversion_hint, likely_encoding

TEXTS = {
    "Shift_JIS": "川のそばに古い水車小屋があります。毎朝、粉屋の主人は麦を運びます。",
    "EUC-JP": "川のそばに古い水車小屋があります。毎朝、粉屋の主人は麦を運びます。",
    "EUC-KR": "강가에 오래된 방앗간이 있다. 매일 아침 주인은 밀을 나른다.",
    "GB18030": "河边有一座古老的水磨坊。每天早晨，磨坊主人都会把小麦运到这里来。",
    "Big5": "河邊有一座古老的水磨坊。每天早晨，磨坊主人都會把小麥運到這裡來。",
    "Windows-1251": "У реки стоит старая мельница. Каждое утро мельник приносит зерно.",
    "KOI8-R": "У реки стоит старая мельница. Каждое утро мельник приносит зерно.",
    "Windows-1252": "Die Mühle steht am Fluß. Le vieux moulin “près” de la rivière – déjà fermé.",
}


def test_every_candidate_is_tested() -> None:
    assert set(TEXTS) == set(CANDIDATES)


@pytest.mark.parametrize("name", TEXTS)
def test_the_encoding_of_a_text(name: str) -> None:
    data = TEXTS[name].encode(CANDIDATES[name][0])
    assert likely_encoding(data) == name
    assert likely_encoding(b'{"text": "' + data * 3 + b'", "label": 1}') == name
    assert likely_encoding(data[:-1]) == name, "cut within a character"
    assert f"it looks like {name}: convert it with iconv -f {name.upper()} -t UTF-8 'a b.txt' > NEW" == conversion_hint(
        data, "a b.txt"
    )


@pytest.mark.parametrize("name", TEXTS)
def test_iconv_knows_the_names_and_gives_the_text(name: str) -> None:
    data = TEXTS[name].encode(CANDIDATES[name][0])
    done = subprocess.run(["iconv", "-f", name.upper(), "-t", "UTF-8"], input=data, capture_output=True, check=True)
    assert done.stdout.decode() == TEXTS[name]


def test_short_western_texts() -> None:
    for text in ("Café", "Straße", "naïve", "El niño comió piñas", "c’est déjà l’été"):
        assert likely_encoding(text.encode("cp1252")) == "Windows-1252"


def test_binary_data_has_no_likely_encoding() -> None:
    for data in (b"", b"ascii", bytes(range(256)), b"\x81\x8d\x8f" * 30):
        assert likely_encoding(data) == ""
        assert conversion_hint(data) == "convert the file to UTF-8"
