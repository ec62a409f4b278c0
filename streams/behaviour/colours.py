"""The colours of the page and its pictures: the console's, light or dark as the reader's system; light on paper."""

import re
from importlib.resources import files


def _sheet(scheme: str) -> str:
    """The console's style sheet of a scheme, on one line, without its comment."""
    text = (files("streams.console") / "static" / f"{scheme}.css").read_text(encoding="utf-8")
    return " ".join(re.sub(r"/\*.*?\*/", "", text).split())


_LIGHT = _sheet("light")
SHEET = f"{_LIGHT} @media screen and (prefers-color-scheme: dark) {{ {_sheet('dark')} }}"
"""Style sheet that defines each colour, for HTML and for SVG."""
DRAWN = {
    name: colour
    for name, colour in re.findall(r"--(\w+): (#\w+);", _LIGHT)
    if name in ("ground", "text", "ink", "second")
}
"""The colours, as of the light scheme, in which pictures are drawn. Ink is blue and the second colour orange, which
people with any colour vision can tell apart.
"""


def follow(svg: str) -> str:
    """The picture with CSS variables in place of the colours `DRAWN`, and with the sheet that defines them.

    An image does not inherit styles from the page around it, only whether it is light or dark.
    """
    for name, colour in DRAWN.items():
        svg = svg.replace(f": {colour}", f": var(--{name})")
    return svg.replace("</style>", f" {SHEET}</style>", 1)
