"""Draw which part of the package imports which: `python docs/programs/layers.py`.

Writes docs/images/layers.svg from the import statements of segnext_jax/.
"""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "segnext_jax"
PICTURE = ROOT / "docs" / "images" / "layers.svg"

_WIDTH, _ROW, _BOX_HEIGHT = 800, 74, 30
_LETTER_PX = 8
_STYLE = (
    "text{font:13px ui-monospace,monospace;fill:#1b1f24;text-anchor:middle}"
    "rect{fill:#e8f0fe;stroke:#5b7fb9}"
    "path{fill:none;stroke:#8a94a3;stroke-opacity:.8}"
)


def edges() -> dict[str, set[str]]:
    """Return the parts that each part of the package imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part.startswith("__"):
            continue
        used = found.setdefault(part, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                used.update(
                    f"{node.module}.{alias.name}".split(".")[1]
                    for alias in node.names
                    if node.module.split(".")[0] == "segnext_jax"
                )
    return {
        part: {name for name in used if name in found and name != part}
        for part, used in found.items()
    }


def levels(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the parts by level: each imports from lower levels alone."""
    height: dict[str, int] = {}

    def climb(part: str) -> int:
        if part not in height:
            height[part] = 1 + max(map(climb, edges[part]), default=-1)
        return height[part]

    rows: list[list[str]] = [[] for _ in range(1 + max(map(climb, edges)))]
    for part in sorted(edges):
        rows[height[part]].append(part)
    return rows


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the edges without those that follow from others."""

    def below(part: str) -> set[str]:
        return edges[part].union(*map(below, edges[part]))

    return {
        part: used.difference(*map(below, used)) if used else set()
        for part, used in edges.items()
    }


def draw(edges: dict[str, set[str]]) -> str:
    """Return the picture: importing parts above, lines down to what they import."""
    rows = levels(edges)[::-1]
    edges = reduced(edges)
    boxes: dict[str, tuple[float, float, float]] = {}
    for number, row in enumerate(rows):
        widths = [len(part) * _LETTER_PX + 20 for part in row]
        gap = (_WIDTH - sum(widths)) / (len(row) + 1)
        left = gap
        for part, width in zip(row, widths, strict=True):
            boxes[part] = (round(left), 10 + number * _ROW, width)
            left += width + gap
    lines, shapes = [], []
    for part, (left, top, width) in boxes.items():
        middle = left + width / 2
        for other in sorted(edges[part]):
            end, bottom, end_width = boxes[other]
            start_y, end_y = top + _BOX_HEIGHT, bottom
            bend = (end_y - start_y) / 2
            end += end_width / 2
            lines.append(
                f'<path d="M{middle:g} {start_y:g}C{middle:g} {start_y + bend:g} '
                f'{end:g} {end_y - bend:g} {end:g} {end_y:g}"/>'
            )
        shapes.append(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{_BOX_HEIGHT}" '
            f'rx="5"/><text x="{middle:g}" y="{top + 20:g}">{part}</text>'
        )
    height = 20 + (len(rows) - 1) * _ROW + _BOX_HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
            f"<style>{_STYLE}</style>",
            f'<rect width="{_WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>',
            *lines,
            *shapes,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(edges()))
