"""The manual's pages fit the repository: links, pictures, quoted errors, fields."""

import ast
import importlib.util
import pathlib
import re

import pytest
import yaml

from segnext_jax.config import FIELDS

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("data/*/README.md")),
    ROOT / "launch" / "README.md",
]
# Made when the manual is built.
MADE = {"configuration.md", "benchmarks.md", "changelog.md", "contributing.md"}


def load(name: str):
    path = DOCS / "programs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(path: pathlib.Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_files_hold(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match("https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if path.parent == DOCS and path.name in MADE:
            continue
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page}: {target}"


def test_every_page_is_in_the_table_of_contents():
    def pages(entries):
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages(value)

    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == sorted({path.name for path in DOCS.glob("*.md")} | MADE)


def test_picture_of_the_parts_is_that_of_the_code():
    layers = load("layers")
    assert layers.PICTURE.read_text() == layers.draw(layers.edges()), (
        "the imports have changed: run python docs/programs/layers.py"
    )


def test_lower_parts_are_drawn_below_what_imports_them():
    layers = load("layers")
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": set()}
    assert layers.levels(edges) == [["c", "d"], ["b"], ["a"]]
    assert layers.reduced(edges) == {"a": {"b"}, "b": {"c"}, "c": set(), "d": set()}


def test_page_of_the_configuration_has_a_row_for_every_field():
    rows = re.findall(
        r"^\| `(.*?)` \| (.*) \|$", load("configuration_page").render(), 8
    )
    assert [name for name, _ in rows] == sorted(FIELDS, key=list(dict(rows)).index)
    for name, row in rows:
        assert FIELDS[name].meaning.replace("|", "\\|") in row
        assert len(re.split(r"(?<!\\)\|", row)) == 4, row


def test_quoted_errors_are_those_of_the_program():
    texts = []
    for path in [*(ROOT / "segnext_jax").rglob("*.py"), ROOT / "launch" / "venv.sh"]:
        if path.suffix == ".sh":
            texts.append(path.read_text())
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part for part in node.values if isinstance(part, ast.Constant))
                texts.extend(str(part.value) for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    said = "\n".join(texts)
    page = (DOCS / "troubleshooting.md").read_text()
    quotes = re.findall(r'\*\*"(.+?)"\*\*', page, re.DOTALL)
    assert len(quotes) >= 15
    for quote in quotes:
        # Names and numbers stand between the words: "...", X, N.
        for words in re.split(r"\.\.\.|\b[XN]\b", quote):
            assert words.strip(" .:") in said, f"{quote!r}: {words!r}"


def test_pictures_are_small():
    pictures = [path for path in (DOCS / "images").iterdir()]
    assert pictures
    assert all(path.stat().st_size < 300_000 for path in pictures)
