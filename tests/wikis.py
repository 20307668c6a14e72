"""Small dumps of wikis in many languages, written for tests: typical markup of each language, and its clean text.

A dump lists only its own namespaces; what it doesn't list (redirect words, older names, switches) occurs in the pages.
"""

import re
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr


@dataclass(frozen=True)
class Sample:
    """A wiki's language, schema version, names of the namespaces File, Category and Talk, the source of a page, its text, and
    the text of a redirect."""

    language: str
    version: str
    file: str
    category: str
    talk: str
    source: str
    text: str
    redirect: str


SAMPLES = (
    Sample(
        "de", "0.10", "Datei", "Kategorie", "Diskussion",
        "__KEIN_INHALTSVERZEICHNIS__\n[[Datei:Mühle.jpg|mini|hochkant|Eine [[Mühle]] am Bach]]\n[[Bild:Rad.png|miniatur|Rad]]\n"
        "Die '''Mühle''' steht am [[Bach (Gewässer)|Bach]].{{Zitat|x}}<ref>Buch</ref> Sie mahlt&nbsp;Korn.\n\n"
        "== Einzelnachweise ==\n* [http://m.example Seite]\n[[Kategorie:Mühle|Rad]]\n[[en:Mill]]",
        "Die Mühle steht am Bach. Sie mahlt Korn.", "#WEITERLEITUNG [[Mühle]]",
    ),
    Sample(
        "fr", "0.8", "Fichier", "Catégorie", "Discussion",
        "[[Fichier:Moulin.flac|vignette|redresse|Le bruit du moulin]]\nL''''ancien moulin''' tourne.{{,}} Il moud le "
        "[[blé|grain]].\n__AUCUNSOMMAIRE__\n\n== Liens externes ==\n* {{lien web|x}} Le site\n[[Catégorie:Moulin]]",
        "L'ancien moulin tourne. Il moud le grain.", "#REDIRECTION [[Moulin]]",
    ),
    Sample(
        "es", "0.6", "Archivo", "Categoría", "Discusión",
        "[[Archivo:M.ogg|miniaturadeimagen|derecha|El molino]]\nEl molino est&aacute; junto al r&#237;o. Muele grano.\n"
        "__NOTDC__\n\n== Enlaces externos ==\n* [http://m.example Molino]\n[[Categoría:Molinos]]",
        "El molino está junto al río. Muele grano.", "#REDIRECCIÓN [[Molino]]",
    ),
    Sample(
        "ru", "0.5", "Файл", "Категория", "Обсуждение",
        "__БЕЗ_ОГЛ__\n[[Файл:Мельница.jpg|мини|справа|Мельница]]\n'''Мельница''' стоит у [[река|реки]].<ref name=\"а\" />\n\n"
        "== См. также ==\n* [[Колесо]]\n\n[[Категория:Мельницы]]",
        "Мельница стоит у реки.", "#перенаправление [[Мельница]]",
    ),
    Sample(
        "sr", "0.11", "Датотека", "Категорија", "Разговор",
        "[[Датотека:Звук.flac|мини|Звук]]\n-{T|sr-ec:Млин;sr-el:Mlin}-\nМлин је -{sr-ec:стар; sr-el:star}- и ради на "
        "-{Windows}- рачунару.\n[[Категорија:Млинови|Млин]]",
        "Млин је стар и ради на Windows рачунару.", "#Преусмери [[Млин]]",
    ),
    Sample(
        "zh", "0.10", "File", "Category", "Talk",
        "__无目录__\n[[文件:水车.jpg|缩略图|右|水车]]\n-{H|zh-cn:信息;zh-tw:資訊;}-\n-{zh-hans:电脑; zh-hant:電腦;}-控制"
        "-{{{lang|zh|水車}}}-。-{A|zh-cn:磨坊;zh-tw:磨房}-在河邊。\n\n== 参考资料 ==\n* 書\n[[分类:水车]]",
        "电脑控制水車。磨坊在河邊。", "#重定向 [[水车]]",
    ),
    Sample(
        "ja", "0.10", "ファイル", "Category", "ノート",
        "＿＿目次非表示＿＿\n[[ファイル:水車.jpg|サムネイル|右|水車]]\n'''水車'''は[[川]]の<nowiki>[水]</nowiki>で回る。\n\n"
        "== 脚注 ==\n<references />\n* 本\n[[Category:水車]]",
        "水車は川の[水]で回る。", "＃転送 [[水車]]",
    ),
    Sample(
        "ar", "0.10", "ملف", "تصنيف", "نقاش",
        "__لافهرس__\n[[ملف:طاحونة.jpg|تصغير|يسار|طاحونة]]\n'''الطاحونة''' بجانب [[نهر|النهر]].\n\n== مراجع ==\n* كتاب\n"
        "[[تصنيف:طواحين]]",
        "الطاحونة بجانب النهر.", "#تحويل [[طاحونة]]",
    ),
    Sample(
        "fa", "0.4", "پرونده", "رده", "بحث",
        "[[پرونده:آسیاب.jpg|بندانگشتی|آسیاب]]\nآسیاب کنار [[رود]] است.\n__بی‌فهرست__\n[[رده:آسیاب‌ها]]",
        "آسیاب کنار رود است.", "#تغییر_مسیر [[آسیاب]]",
    ),
    Sample(
        "hi", "0.3", "चित्र", "श्रेणी", "वार्ता",
        "__विषय_सूची_हीन__\n[[चित्र:चक्की.jpg|अंगूठाकार|चक्की]]\nचक्की [[नदी]] के पास है।\n[[श्रेणी:चक्की]]",
        "चक्की नदी के पास है।", "#अनुप्रेषित [[चक्की]]",
    ),
    Sample(
        "ko", "0.10", "파일", "분류", "토론",
        "__목차숨김__\n[[파일:물레방아.jpg|섬네일|물레방아]]\n'''물레방아'''는 [[강]]가에 있다.\n\n"
        "== 각주 ==\n* 책\n[[분류:물레방아]]",
        "물레방아는 강가에 있다.", "#넘겨주기 [[물레방아]]",
    ),
    Sample(
        "tr", "0.10", "Dosya", "Kategori", "Tartışma",
        "__İÇİNDEKİLERYOK__\n[[Dosya:Değirmen.wav|küçükresim|sağ|Değirmen]]\nDeğirmen [[ırmak]] kıyısındadır."
        "\n[[KATEGORİ:Değirmen]]\n[[Kategori:Su]]",
        "Değirmen ırmak kıyısındadır.", "#YÖNLENDİRME [[Değirmen]]",
    ),
    Sample(
        "pl", "0.6", "Plik", "Kategoria", "Dyskusja",
        "__BEZSPISU__\n[[Plik:Młyn.jpg|mały|lewo|Młyn]]\n[[Grafika:Koło.jpg|thumb|Koło]]\nMłyn stoi nad [[rzeka|rzeką]].\n\n"
        "== Przypisy ==\n* Książka\n[[Kategoria:Młyny]]",
        "Młyn stoi nad rzeką.", "#PATRZ [[Młyn]]",
    ),
    Sample(
        "th", "0.10", "ไฟล์", "หมวดหมู่", "พูดคุย",
        "__ไม่มีสารบัญ__\n[[ไฟล์:กังหัน.jpg|thumb|กังหัน]]\nกังหันอยู่ริม[[แม่น้ำ]]\n[[หมวดหมู่:กังหัน]]",
        "กังหันอยู่ริมแม่น้ำ", "#เปลี่ยนทาง [[กังหัน]]",
    ),
    Sample(
        "he", "0.11", "קובץ", "קטגוריה", "שיחה",
        "__ללא_תוכן__\n[[קובץ:טחנה.jpg|ממוזער|שמאל|טחנה]]\nהטחנה עומדת ליד [[נהר|הנהר]].\n[[\u200fקטגוריה:טחנות]]",
        "הטחנה עומדת ליד הנהר.", "#הפניה [[טחנה]]",
    ),
)  # fmt: skip

LEFTOVER = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|-\{|\}-|''|__\S+__|＿＿|</?[a-z]+|&#?\w+;|\|")


def markup_characters(text: str) -> int:
    """Count the characters of markup left in a text."""
    return sum(len(found) for found in LEFTOVER.findall(text))


def page(sample: Sample, title: str, namespace: int, number: int, text: str, model: str = "wikitext") -> str:
    """A page in the sample's schema version: <ns> from 0.5 on, <model> from 0.6 on, redirects only by their text."""
    version = int(sample.version.split(".")[1])
    ns = f"<ns>{namespace}</ns>" if version >= 5 else ""
    body = f'<text xml:space="preserve">{escape(text)}</text>'
    if version >= 11:
        slot = (
            f"<content><role>other</role><origin>1</origin><model>json</model><format>application/json</format>{body}</content>"
        )
        body = f"<origin>1</origin><model>{model}</model><format>text/x-wiki</format>{body}{slot}"
    elif version >= 6:
        body = f"<model>{model}</model><format>text/x-wiki</format>{body}"
    return (
        f"<page><title>{escape(title)}</title>{ns}<id>{number}</id><revision><id>9</id>"
        f"<contributor><username>A</username><id>3</id></contributor>{body}</revision></page>\n"
    )


def head(sample: Sample) -> str:
    """The dump's head."""
    names = {-2: "Media", -1: "Special", 0: "", 1: sample.talk, 2: "User", 6: sample.file, 10: "Template", 14: sample.category}
    namespaces = "".join(f'<namespace key="{key}" case="first-letter">{name}</namespace>' for key, name in names.items())
    url = f"http://www.mediawiki.org/xml/export-{sample.version}/"
    return (
        f'<mediawiki xmlns="{url}" version="{sample.version}" xml:lang={quoteattr(sample.language)}>\n<siteinfo>'
        f"<sitename>Mill</sitename><dbname>{sample.language}wiki</dbname><namespaces>{namespaces}</namespaces></siteinfo>\n"
    )


def pages(sample: Sample, copies: int = 1) -> list[str]:
    """An article (`copies` times), and pages that must not become documents."""
    articles = [page(sample, f"A{number}", 0, number, sample.source) for number in range(copies)]
    return [
        *articles,
        page(sample, f"{sample.talk}:A", 1, 900, "I disagree. ~~~~"),
        page(sample, "Template:A", 10, 901, "{{{1}}} is a box"),
        page(sample, f"{sample.category}:A", 14, 902, "Pages about mills."),
        page(sample, f"{sample.file}:A.jpg", 6, 903, "A photograph."),
        page(sample, "Old", 0, 904, sample.redirect),
    ]


def dump(sample: Sample, copies: int = 1) -> bytes:
    """The sample as a dump."""
    return (head(sample) + "".join(pages(sample, copies)) + "</mediawiki>\n").encode()
