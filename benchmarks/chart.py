"""A bar chart as SVG, on a logarithmic scale: no library, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, LABELS, NOTES, TOP = 900, 30, 190, 270, 48
COLOURS = {"raw": "#8a8f98", "ours": "#1a7f5a", "peer": "#c2803a"}
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.note,.tick{fill:#656d76;font-size:12px}.grid{stroke:#d0d7de}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note,.tick{fill:#9198a1}.grid{stroke:#3d444d}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `kind` is 'raw', 'ours' or 'peer'; the note stands behind the value."""

    label: str
    value: float
    note: str
    kind: str


def draw(title: str, bars: Sequence[Bar]) -> str:
    """Return the SVG. All values are above zero; the scale begins at a power of ten below the smallest."""
    low = math.floor(math.log10(min(bar.value for bar in bars)) + 1e-9)
    high = math.ceil(math.log10(max(bar.value for bar in bars)) - 1e-9)
    low, high = (low - 1, high) if low == math.log10(min(bar.value for bar in bars)) else (low, max(high, low + 1))
    length = WIDTH - LABELS - NOTES
    height = TOP + ROW * len(bars) + 12

    def place(value: float) -> float:
        return LABELS + (math.log10(value) - low) / (high - low) * length

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text x="8" y="18" font-weight="600">{escape(title)} (each line: ten times more)</text>',
    ]
    for power in range(low, high + 1):
        x = place(10**power)
        lines.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 8}"/>')
        lines.append(f'<text class="tick" x="{x:.1f}" y="{TOP - 12}" text-anchor="middle">{10.0**power:,.0f}</text>')
    for number, bar in enumerate(bars):
        y = TOP + ROW * number
        end = place(bar.value)
        lines.append(f'<text x="8" y="{y + 16}">{escape(bar.label)}</text>')
        lines.append(
            f'<rect x="{LABELS}" y="{y + 3}" width="{max(1.0, end - LABELS):.1f}" height="{ROW - 10}" rx="2"'
            f' fill="{COLOURS[bar.kind]}"/>'
        )
        lines.append(
            f'<text x="{end + 6:.1f}" y="{y + 17}">{bar.value:,.0f} <tspan class="note">{escape(bar.note)}</tspan></text>'
        )
    return "\n".join([*lines, "</svg>", ""])
