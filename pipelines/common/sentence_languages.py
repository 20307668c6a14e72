"""Which languages the sentence splitter knows, for --help and warnings: no library is loaded for them."""

# sentencex has abbreviations or end marks of these languages. Any other gets those of a related language or of English,
# and the end marks of all scripts.
# fmt: off
OWN_RULES = (
    "am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy", "it",
    "ja", "kk", "kn", "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te", "uk",
)
# fmt: on
# sentences.SCRIPTS has rules for the scripts of these.
SCRIPT_RULES = ("bo", "dz", "km", "lo", "th")
# These end their sentences with marks that every language gets, and abbreviate without marks.
GENERAL_RULES = ("yue", "wuu", "zh")
KNOWN = tuple(sorted((*OWN_RULES, *SCRIPT_RULES, *GENERAL_RULES)))


def language_warning(splitter: str, language: str) -> str:
    """A sentence for a language that the splitter has no rules for, else an empty string."""
    if splitter == "none" or language in KNOWN:
        return ""
    return (
        f"--sentence-language {language}: the sentence splitter has no rules of its own for it: sentences end at the marks of "
        "all scripts, and abbreviations are those of a related language or of English"
    )
