"""Draw each plot of a name once per process: drawing takes half of the time of a `prepare` on a test's few documents.

The first plot of every name is drawn as ever; later ones reuse its lines, with their own title and description. Tests of plots
and pages draw every plot: `pytestmark = pytest.mark.usefixtures("every_drawing")`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from clozemill.pipelines.pages import svg
from clozemill.pipelines.pages.content import Plot

_draw = svg.matplotlib_svg
_drawn: dict[str, str] = {}


def draw_once(plot: Plot) -> str:
    """Return matplotlib's SVG of a plot, or that of an earlier plot of the same name."""
    if plot.name not in _drawn:
        _drawn[plot.name] = _draw(plot)
    return _drawn[plot.name]


@contextmanager
def each_once() -> Iterator[None]:
    """Reuse the drawings of plots of the same name meanwhile."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(svg, "matplotlib_svg", draw_once)
        yield


@contextmanager
def every_one() -> Iterator[None]:
    """Draw every plot meanwhile."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(svg, "matplotlib_svg", _draw)
        yield
