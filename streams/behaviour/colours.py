"""The colours of the page and its pictures: the console's, light or dark as the reader's system is, light on paper."""

import re
from importlib.resources import files


def _sheet(scheme: str) -> str:
    """The console's style sheet of a scheme, on one line, without its comment."""
    text = (files("streams.console") / "static" / f"{scheme}.css").read_text(encoding="utf-8")
    return " ".join(re.sub(r"/\*.*?\*/", "", text).split())


_LIGHT = _sheet("light")
SHEET = f"{_LIGHT} @media screen and (prefers-color-scheme: dark) {{ {_sheet('dark')} }}"
"""Says what each colour is, in HTML and in SVG alike."""
DRAWN = {
    name: colour
    for name, colour in re.findall(r"--(\w+): (#\w+);", _LIGHT)
    if name in ("ground", "text", "ink", "second")
}
"""What pictures are drawn in, as it is on light ground. Ink is blue, the second colour orange: apart for every kind of
colour sight.
"""


def follow(svg: str) -> str:
    """The picture with the names of colours in place of those `DRAWN`, and with the sheet that says what they are.

    An image shares no style with the page around it, but its scheme.
    """
    for name, colour in DRAWN.items():
        svg = svg.replace(f": {colour}", f": var(--{name})")
    return svg.replace("</style>", f" {SHEET}</style>", 1)
