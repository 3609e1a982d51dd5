"""One way to make a picture: matplotlib draws an SVG, which is then fitted into a page of either colour scheme.

The same picture has the same bytes every time: no date, no random ids, matplotlib's own defaults whatever the user's are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins that the page's own colours replace: matplotlib knows no currentColor.
INK, RULE = "#010203", "#010204"
_PAGE_COLOURS = {INK: "currentColor", RULE: "var(--rule)"}

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "regrow",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def picture(name: str, alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Markup:
    """An inline SVG.

    Args:
        name: unique on the page; keeps the ids of two pictures apart.
        alt: what the picture says, for those who do not see it.
        size: width and height in inches; scaled to its column on the page.
        draw: fills the figure.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        buffer = StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)  # type: ignore[no-untyped-call]
    return _fit_page(name, alt, buffer.getvalue())


def _fit_page(name: str, alt: str, svg: str) -> Markup:
    """Without XML prolog, fixed size and ids that another picture may have; with the page's colours and a text alternative."""
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None, "matplotlib writes a viewBox"
    body = svg[svg.index(">", view_box.end()) + 1 :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    for stand_in, colour in _PAGE_COLOURS.items():
        body = body.replace(stand_in, colour)
    return Markup('<svg role="img" aria-label="{}" {}>').format(alt, Markup(view_box[0])) + Markup(body.strip())
