"""Languages for which the sentence splitter has rules, for --help and warnings. Loads no library."""

# sentencex has abbreviations or end marks for these languages. For others it uses those of a related language or of
# English, and the end marks of all scripts.
# fmt: off
OWN_RULES = (
    "am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy", "it",
    "ja", "kk", "kn", "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te", "uk",
)
# fmt: on
# sentences.SCRIPTS has rules for the scripts of these languages.
SCRIPT_RULES = ("bo", "dz", "km", "lo", "th")
# These languages end sentences with marks that sentencex knows for all languages, and have no marks for abbreviations.
GENERAL_RULES = ("yue", "wuu", "zh")
KNOWN = tuple(sorted((*OWN_RULES, *SCRIPT_RULES, *GENERAL_RULES)))


def language_warning(splitter: str, language: str) -> str:
    """Return a warning if the splitter has no rules for a language, otherwise an empty string."""
    if splitter == "none" or language in KNOWN:
        return ""
    return (
        f"--sentence-language {language}: the sentence splitter has no rules for this language: it splits at the end marks of "
        "all scripts, and uses the abbreviations of a related language or of English"
    )
