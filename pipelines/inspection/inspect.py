"""`clozemill inspect DATASET`: show records as text, as a model sees them.

    clozemill inspect DATASET --limit 5
    clozemill inspect DATASET --limit 50 --html records.html
    clozemill inspect DATASET --report

A masked position is shown as {shown<-original}: {[MASK]<-river}, {apple<-river} for a random token, {river} if it was kept.
"""

from clozemill.pipelines.command_line.options import require
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InspectConfig
from clozemill.pipelines.data_card import card
from clozemill.pipelines.dataset import layout
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.inspection import html
from clozemill.pipelines.inspection import records as inspection_records
from clozemill.pipelines.inspection import text as inspection_text


def main(config: InspectConfig) -> int:
    """Print records, or write a page."""
    require(config, "dataset")
    if config.report:
        card.write(config.dataset)
        print(f"wrote {filesystem.join(config.dataset, layout.HTML)} and {layout.MARKDOWN}")
    if config.html and not config.html.endswith((".html", ".htm")):
        raise UserError(f"--html {config.html} is not the name of an HTML file: give a name that ends in .html")
    if config.html:
        filesystem.write_bytes(config.html, html.page(inspection_records.read_records(config)).encode())
        print(f"wrote {config.html}")
    if not config.html and not config.report:
        for line in inspection_text.describe_shard(inspection_records.read_records(config)):
            print(line)
    return 0
