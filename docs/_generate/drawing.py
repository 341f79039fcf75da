"""The few shapes that docs/_generate/diagrams.py draws, as SVG: GitHub and the site show it, without a script."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from html import escape

INK, PALE, LINE = "#1f2933", "#52606d", "#7b8794"
FILLS = {"container": "#e3f2fd", "network": "#c8e6c9", "volume": "#ffe0b2", "machine": "#f5f5f5", "fails": "#ffebee"}
FONT = "font-family='Helvetica, Arial, sans-serif'"
# About how wide a letter of 12 pixels is.
LETTER = 6.3


@dataclass
class Drawing:
    """Shapes in the order in which they were added; later ones lie above earlier ones."""

    title: str
    width: int
    height: int = 0
    shapes: list[str] = field(default_factory=list)

    def box(
        self, left: float, top: float, width: float, height: float, kind: str, lines: list[str], bold: int = 1
    ) -> None:
        """A rectangle with ``bold`` bold lines in it, and smaller ones below."""
        self.shapes.append(
            f"<rect x='{left:g}' y='{top:g}' width='{width:g}' height='{height:g}' rx='5' fill='{FILLS[kind]}'"
            f" stroke='{LINE}'/>"
        )
        start = top + height / 2 - (len(lines) - 1) * 8 + 4
        for number, line in enumerate(lines):
            self.text(left + width / 2, start + number * 16, line, middle=True, bold=number < bold, pale=number >= bold)
        self.height = max(self.height, int(top + height) + 12)

    def text(
        self, left: float, top: float, line: str, middle: bool = False, bold: bool = False, pale: bool = False
    ) -> None:
        """One line."""
        anchor = " text-anchor='middle'" if middle else ""
        weight = " font-weight='bold'" if bold else ""
        size = 11 if pale else 12
        self.shapes.append(
            f"<text x='{left:g}' y='{top:g}' {FONT} font-size='{size}' fill='{PALE if pale else INK}'{anchor}{weight}>"
            f"{escape(line)}</text>"
        )
        self.height = max(self.height, int(top) + 12)

    def paragraph(self, left: float, top: float, width: float, text: str, pale: bool = False) -> float:
        """Some lines, broken to fit; returns how high they are."""
        lines = textwrap.wrap(text, int(width / LETTER)) or [""]
        for number, line in enumerate(lines):
            self.text(left, top + number * 16, line, pale=pale)
        return len(lines) * 16

    def line(self, from_x: float, from_y: float, to_x: float, to_y: float, arrow: bool = False) -> None:
        """A straight line; the end of one without an arrow gets a dot."""
        marker = " marker-end='url(#arrow)'" if arrow else ""
        self.shapes.insert(
            0, f"<line x1='{from_x:g}' y1='{from_y:g}' x2='{to_x:g}' y2='{to_y:g}' stroke='{LINE}'{marker}/>"
        )
        if not arrow:
            self.shapes.append(f"<circle cx='{to_x:g}' cy='{to_y:g}' r='4' fill='{INK}'/>")

    def svg(self) -> str:
        """The file's content."""
        head = (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{self.width}' height='{self.height}' "
            f"viewBox='0 0 {self.width} {self.height}' role='img'>\n<title>{escape(self.title)}</title>\n"
            "<!-- Made by `make docs-diagrams`; do not edit. -->\n"
            "<defs><marker id='arrow' markerWidth='9' markerHeight='8' refX='8' refY='4' orient='auto'>"
            f"<path d='M0,0 L9,4 L0,8 z' fill='{LINE}'/></marker></defs>\n"
            f"<rect width='{self.width}' height='{self.height}' fill='#ffffff'/>\n"
        )
        return head + "\n".join(self.shapes) + "\n</svg>\n"
