"""How far two colours are apart for who reads one on the other."""

import re


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it, of two opaque colours as a browser or a style sheet writes them."""
    light, dark = sorted((_luminance(colour) for colour in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = re.findall("[0-9a-f]{2}", colour) if colour[0] == "#" else re.findall(r"\d+", colour)
    assert len(parts) == 3, f"{colour} is not opaque"
    shares = [int(part, 16 if colour[0] == "#" else 10) / 255 for part in parts]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
