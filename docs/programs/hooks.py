"""What MkDocs adds to the manual: pages that are made of other files, and their links.

The page of the configuration comes from its fields, the pages of data sets from
data/*/README.md. Links between files of the repository become links between pages.
"""

import ast
import json
import pathlib
import posixpath
import re
import sys
from typing import Any

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import configuration_page  # noqa: E402 (beside this file, which is no package)

# Files of the repository -> pages of the manual.
PAGES = {
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    **{
        path.relative_to(ROOT).as_posix(): f"datasets/{path.parent.name}.md"
        for path in sorted(ROOT.glob("data/*/README.md"))
    },
}
_ORIGINS = {page: file for file, page in PAGES.items() if page != "index.md"}
_CONFIGS_HERE = re.compile("<!-- configs: .* -->")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that have no file in docs/."""
    texts = {page: (ROOT / file).read_text() for page, file in _ORIGINS.items()}
    texts["configuration.md"] = configuration_page.render()
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        texts[f"notebooks/{path.stem}.md"] = notebook_page(path)
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the table of configs into its place, and let links point to pages."""
    if page.file.src_uri == "recipes.md":
        markdown = _CONFIGS_HERE.sub(configs_table, markdown)
    return with_links_between_pages(markdown, page.file.src_uri)


def configs_table(_: Any = None) -> str:
    """Return a table of the files of configs/ and the first line of each."""
    rows = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, f"{path} must have a docstring"
        rows.append(f"| `{path.name}` | {docstring.splitlines()[0]} |")
    return "\n".join(["| config | what, and what is reported |", "|---|---|", *rows])


def notebook_page(path: pathlib.Path) -> str:
    """Return the cells of a notebook as Markdown."""
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join(
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell in cells
        for text in ["".join(cell["source"])]
    )


def with_links_between_pages(markdown: str, page: str) -> str:
    """Return a page's text; links to files that have no page become their text.

    Args:
      markdown: The text, whose links hold where the page's file lies.
      page: Path of the page below docs/.
    """
    folder = posixpath.dirname(_ORIGINS.get(page, f"docs/{page}"))

    def renew(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        file = posixpath.normpath(posixpath.join(folder, target))
        other = PAGES.get(file, file.removeprefix("docs/"))
        other = other.replace(".ipynb", ".md")
        if file not in PAGES and not file.startswith("docs/"):
            return text
        link = posixpath.relpath(other, posixpath.dirname(page) or ".")
        return f"[{text}]({link}{anchor or ''})"

    return _LINK.sub(renew, markdown)
