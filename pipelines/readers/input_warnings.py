"""Warnings about input that can be read but has a weakness, from the first bytes of its files."""

from clozemill.pipelines.readers import mediawiki
from clozemill.pipelines.readers.formats import Plan

_LOOKED_AT = 16  # number of files to check: files of the same dump begin alike


def input_warnings(plan: Plan) -> list[str]:
    """Return a sentence for each weakness of the input, with what to do."""
    dumps = {split.path: split.compression for split in plan.splits if split.format == "wikixml"}
    for path, compression in sorted(dumps.items())[:_LOOKED_AT]:
        if mediawiki.names_no_namespaces(path, compression):
            return [
                f"{path} lists no namespaces, neither in <siteinfo> nor as <ns> in its pages, so that talk, user and template "
                "pages can be recognized only by their English prefixes: if the wiki is in another language, give a dump with "
                "its <siteinfo>"
            ]
    return []
