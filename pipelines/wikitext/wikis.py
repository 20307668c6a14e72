"""What the head of a dump says about its wiki, and localised words that dumps don't list.

A dump names its language and its namespaces. It doesn't list the redirect keywords, older names of namespaces, or titles of
reference sections. The tables here contain them for the languages with the largest wikis.
"""

import re
from dataclasses import dataclass
from functools import cached_property

_words = str.split  # a table of words is easier to read without quotes around each

# English names work on every wiki; "Image" is the older name of "File".
ENGLISH_NAMESPACES = {
    "media": -2, "special": -1, "talk": 1, "user": 2, "user talk": 3, "project": 4, "project talk": 5, "file": 6, "image": 6,
    "file talk": 7, "image talk": 7, "mediawiki": 8, "mediawiki talk": 9, "template": 10, "template talk": 11, "help": 12,
    "help talk": 13, "category": 14, "category talk": 15, "module": 828, "module talk": 829,
}  # fmt: skip
# Names that the largest English wikis use for their project pages: valid if a dump lists no namespaces.
_USUAL_NAMESPACES = dict.fromkeys(
    _words("wikipedia wiktionary wikisource wikibooks wikiquote wikinews wikiversity wikivoyage commons"), 4
) | {"portal": 100, "draft": 118}  # fmt: skip
_USUAL_NAMESPACES |= {f"{name} talk": number + 1 for name, number in _USUAL_NAMESPACES.items()}
_FILES, _CATEGORIES = (-2, 6), (14,)  # numbers of the namespaces whose links produce no text

# Further names of these namespaces, besides the one that the dump lists: older names, and the usual names for a dump without
# a head. A name of several words is written with "_".
_HIDDEN_ALIASES = frozenset(
    name.replace("_", " ")
    for name in _words(
        "file image media fichier datei bild archivo imagen ficheiro imagem immagine файл изображение plik "
        "grafika bestand afbeelding fil tiedosto kuva dosya soubor fájl kép αρχείο berkas ファイル 画像 "
        "文件 图像 圖像 파일 그림 ملف קובץ चित्र category catégorie kategorie categoría categoria категория "
        "категорія kategoria kategori categorie luokka kategória κατηγορία カテゴリ 分类 分類 분류 تصنيف "
        "档案 檔案 图片 圖片 صورة پرونده تصویر رده תמונה קטגוריה датотека слика категорија datoteka slika kategorija "
        "зображення выява катэгорыя картинка resim εικόνα fișier imagine súbor obrázok obrázek vaizdas attēls kateqoriya "
        "şəkil fitxer imatge gambar tập_tin hình thể_loại ไฟล์ ภาพ หมวดหมู่ படிமம் பகுப்பு దస్త్రం వర్గం চিত্র বিষয়শ্রেণী श्रेणी "
        "ფაილი კატეგორია պատկեր կատեգորիա сурет санат fitxategi irudi kategorio dosiero skrá mynd flokkur"
    )
)

# Redirect keywords, from MediaWiki's translations.
REDIRECTS = frozenset(
    word.replace("_", " ").lower()
    for word in _words(
        "redirect WEITERLEITUNG REDIRECTION REDIRECCIÓN REDIRECCION REDIRECIONAMENTO RINVIA RINVIO RIMANDO DOORVERWIJZING "
        "AANSTUUR OMDIRIGERING omdiriger OHJAUS UUDELLEENOHJAUS tilvísun suuna PATRZ PRZEKIERUJ TAM PŘESMĚRUJ presmeruj "
        "PREUSMJERI PREUSMERI PREUSMERITEV ÁTIRÁNYÍTÁS REDIRECTEAZA ALIDIREKTU BIRZUZENDU ADKAS ail-cyfeirio ailgyfeirio "
        "athsheoladh PERADRESAVIMAS RIDREJTO YÖNLENDİRME yönlendirme ALIH LENCONG đổi перенаправление перенапр "
        "ПЕРЕНАПРАВЛЕННЯ перанакіраванне перанакіраваньне преусмери пренасочване виж пренасочување види АЙДАУ "
        "ΑΝΑΚΑΤΕΥΘΥΝΣΗ ՎԵՐԱՀՂՈՒՄ გადამისამართება הפניה ווייטערפירן تحويل تغییرمسیر تغییر_مسیر رجوع_مکرر अनुप्रेषित "
        "पुनर्प्रेषित पुनर्निर्देशन পুনর্নির্দেশ வழிமாற்று దారిమార్పు തിരിച്ചുവിടുക เปลี่ยนทาง 転送 リダイレクト 重定向 重新導向 넘겨주기"
    )
)

# Titles of sections with references, links and the like, in lower case.
REFERENCE_SECTIONS = frozenset(
    _words(
        "references|external links|external link|see also|further reading|notes|notes and references|"
        "references and notes|footnotes|bibliography|sources|citations|works cited|weblinks|"
        "einzelnachweise|siehe auch|literatur|références|liens externes|voir aussi|referencias|véase también|"
        "enlaces externos|bibliografía|notes et références|bibliographie|anmerkungen|quellen|annexes|"
        "примечания|литература|ссылки|см. также|источники|примітки|посилання|джерела|література|див. також|"
        "референце|спољашње везе|извори|види још|reference|spoljašnje veze|vidi još|"
        "przypisy|bibliografia|linki zewnętrzne|zobacz też|note|collegamenti esterni|voci correlate|"
        "referências|ligações externas|ver também|bibliografia|referenties|externe links|zie ook|bronnen|"
        "referenser|externa länkar|se även|källor|referencer|eksterne henvisninger|se også|kilder|eksterne lenker|"
        "lähteet|aiheesta muualla|katso myös|viitteet|související články|externí odkazy|literatura|"
        "jegyzetek|források|további információk|kaynakça|dış bağlantılar|ayrıca bakınız|παραπομπές|εξωτερικοί σύνδεσμοι|"
        "referensi|pranala luar|lihat pula|tham khảo|liên kết ngoài|chú thích|xem thêm|"
        "脚注|出典|参考文献|外部リンク|関連項目|注釈|参考资料|参考資料|外部链接|外部連結|参见|參見|注释|註釋|延伸阅读|"
        "각주|같이 보기|외부 링크|참고 문헌|مراجع|المراجع|وصلات خارجية|انظر أيضا|انظر أيضًا|منابع|پانویس|"
        "جستارهای وابسته|پیوند به بیرون|"
        "הערות שוליים|קישורים חיצוניים|ראו גם|לקריאה נוספת|सन्दर्भ|संदर्भ|बाहरी कड़ियाँ|इन्हें भी देखें|อ้างอิง|แหล่งข้อมูลอื่น|ดูเพิ่ม",
        "|",
    )
)

# Behaviour switches that MediaWiki accepts in any case, or that contain a "_", in lower case: English, and the languages with
# the largest wikis, from MediaWiki's translations.
SWITCHES = frozenset(
    _words(
        "expected_unconnected_page notoc forcetoc toc noeditsection nogallery notitleconvert notc nocontentconvert nocc "
        "kein_inhaltsverzeichnis keininhaltsverzeichnis ohneinhaltsverzeichnis inhaltsverzeichnis_erzwingen "
        "inhaltsverzeichnis abschnitte_nicht_bearbeiten keine_galerie keeninholtverteken wiesinholtverteken "
        "inholtverteken keenännernlink aucunsommaire aucunetdm forcersommaire forcertdm sommaire tdm sectionnoneditable "
        "sectionnonéditable aucunegalerie notdc forzartdc forzartoc tdc noeditarsección noeditarseccion nogalería nogaleria "
        "semtdc semsumário forcartdc forcarsumario forçartdc forçarsumário sumário sumario nãoeditarseção naoeditarsecao "
        "semeditarseção semeditarsecao semgaleria seníndice forzaroíndice índice secciónsnoneditables sengalería "
        "geeninhoud inhoud_dwingen forceerinhoud inhoud nietbewerkbaresectie geen_galerij bezspisu zespisem wymuśspis spis "
        "bezedycjisekcji bezgalerii ingeninnehållsförteckning alltidinnehållsförteckning innehållsförteckning "
        "interedigerasektion ingetgalleri ingeninnholdsfortegnelse tvinginnholdsfortegnelse innholdsfortegnelse "
        "ingenseksjonsredigering intetgalleri bezobsahu vždyobsah obsah bezeditovatčást bezgalerie vynúťobsah "
        "neupravujsekcie nincstartalomjegyzék nincstj legyentartalomjegyzék legyentj tartalomjegyzék tj nincsszerkesztés "
        "nincsszerk nincsgaléria içindekileryok içindekilerzorunlu içindekiler değiştiryok düzenlemeyok galeriyok "
        "без_оглавления без_огл обязательное_оглавление обяз_огл оглавление огл без_редактирования_раздела без_галереи "
        "без_змісту обов_зміст зміст без_редагув_розділу без_галереї безсадржаја без_садржаја форсиранисадржај "
        "форсирани_садржај садржај безизмена без_измена безгалерије без_галерије безсъдържание съссъдържание съдържание "
        "без_редактиране_на_раздели безгалерия"
    )
)

# Prefixes of interlanguage links: the codes of Wikipedia's languages, including older ones.
LANGUAGES = frozenset(
    _words(
        "aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar bat-smg "
        "bbc bcl bdr be be-tarask be-x-old bew bg bh bho bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo ce ceb ch "
        "cho chr chy ckb cmn co cr crh cs csb cu cv cy cz da dag de dga din diq dk dsb dtp dty dv dz ee egl el eml en eo epo "
        "es et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu "
        "guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam "
        "jbo jp jv ka kaa kab kaj kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb "
        "lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min minnan mk ml mn mni mnw "
        "mo mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nb nds nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nup "
        "nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rki rm rmy rn ro roa-rup "
        "roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn shy si simple sk skr sl sm smn sn so sq sr "
        "srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn to tok tpi tr trv ts tt tum tw "
        "ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-cfr zh-classical "
        "zh-cn zh-min-nan zh-tw zh-yue zu"
    )
)

# Languages whose wikis convert between scripts or spellings, so that -{...}- is markup, with the preferred variants.
VARIANTS: dict[str, tuple[str, ...]] = {
    "zh": ("zh-hans", "zh-cn", "zh-sg", "zh-my", "zh"),
    "wuu": ("wuu-hans", "wuu"),
    "gan": ("gan-hans", "gan"),
    "sr": ("sr-ec", "sr-cyrl", "sr"),
    "sh": ("sh-latn", "sh"),
    "kk": ("kk-cyrl", "kk-kz", "kk"),
    "ku": ("ku-latn", "ku"),
    "uz": ("uz-latn", "uz"),
    "tg": ("tg", "tg-cyrl"),
    "crh": ("crh-latn", "crh"),
    "iu": ("ike-cans", "iu"),
    "shi": ("shi-latn", "shi"),
    "zgh": ("zgh", "zgh-tfng"),
    "mni": ("mni", "mni-mtei"),
    "tly": ("tly", "tly-latn"),
    "ban": ("ban", "ban-latn"),
}
_NO_VARIANTS = ("zh-yue", "zh-min", "zh-class")  # separate languages
_DATABASE = re.compile(r"([a-z]{2,3})(?:_[a-z_]+)?wik")


def normal_name(name: str) -> str:
    """Return a namespace's name in the form used to compare: lower case, single spaces, no direction marks, one letter i."""
    return " ".join(name.lower().translate(_NAME_SIGNS).split())


# Turkish has two letters i. Unicode's lower case of the capital İ is an i followed by a separate dot above.
_NAME_SIGNS = dict.fromkeys((*range(0x202A, 0x202F), 0x200E, 0x200F, 0x307)) | {ord("_"): " ", ord("ı"): "i"}


@dataclass(frozen=True)
class Wiki:
    """The description of a wiki in the head of its dump.

    language: a code such as "de", or "" if the dump names none. namespaces: (number, name) in the dump's order.
    """

    language: str = ""
    namespaces: tuple[tuple[int, str], ...] = ()

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The normal names of namespaces whose links produce no text: files and categories."""
        own = {normal_name(name) for number, name in self.namespaces if number in _FILES + _CATEGORIES}
        return _HIDDEN_ALIASES | own

    @cached_property
    def _numbers(self) -> dict[str, int]:
        if not self.namespaces:
            return dict.fromkeys(_HIDDEN_ALIASES, _FILES[1]) | _USUAL_NAMESPACES | ENGLISH_NAMESPACES
        return ENGLISH_NAMESPACES | {normal_name(name): number for number, name in self.namespaces if name}

    def namespace_of(self, title: str) -> int:
        """Return the number of the namespace that a title's prefix names, or 0.

        If the wiki lists no namespaces, the English names are known, and those of files and categories in other languages, all
        with the number of files.
        """
        prefix, colon, _ = title.partition(":")
        return self._numbers.get(normal_name(prefix), 0) if colon else 0

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """The preferred variants within -{...}-; empty if the wiki doesn't use this markup."""
        if self.language.startswith(_NO_VARIANTS):
            return ()
        return VARIANTS.get(self.language.partition("-")[0], ())


UNKNOWN_WIKI = Wiki()


def language_of(declared: str, database: str) -> str:
    """Return a wiki's language from xml:lang, or else from the name of its database, such as "dewiktionary"."""
    if declared.strip():
        return declared.strip().lower()
    found = _DATABASE.match(database.strip().lower())
    return found[1] if found else ""
