"""`clozemill inspect DATASET`: show records as text, as a model sees them.

    clozemill inspect DATASET --limit 5
    clozemill inspect DATASET --limit 50 --html records.html
    clozemill inspect DATASET --id 4711
    clozemill inspect DATASET --report

A masked position is shown as {shown<-original}: {[MASK]<-river}, {apple<-river} for a random token, {river} if it was kept.
"""

from collections.abc import Iterator

from clozemill.pipelines.command_line.overwriting import check_new_file
from clozemill.pipelines.data_card import card
from clozemill.pipelines.dataset import layout
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.inspection import document_search, html
from clozemill.pipelines.inspection import records as inspection_records
from clozemill.pipelines.inspection import text as inspection_text
from clozemill.pipelines.inspection.config import InspectConfig


def main(config: InspectConfig) -> int:
    """Print records, or write a page."""
    if config.html:
        check_new_file(config.html, config.overwrite, "--html")
    if config.report:
        card.write(config.dataset)
        print(f"wrote {filesystem.join(config.dataset, layout.HTML)} and {layout.MARKDOWN}")
    if config.html:
        filesystem.write_bytes(config.html, _page(config).encode())
        print(f"wrote {config.html}")
    if not config.html and not config.report:
        for line in _lines(config):
            print(line)
    return 0


def _page(config: InspectConfig) -> str:
    if config.id:
        return html.search_page(document_search.find_records(config), config.offset)
    return html.page(inspection_records.read_records(config), config.offset)


def _lines(config: InspectConfig) -> Iterator[str]:
    if config.id:
        return inspection_text.describe_search(document_search.find_records(config))
    return inspection_text.describe_shard(inspection_records.read_records(config), config.offset)
