"""The page of the manual that lists every field of a configuration."""

from segnext_jax.config import FIELDS
from segnext_jax.config.fields import EVALUATION, PREDICTION, Field
from segnext_jax.config.kinds import shown

_HEAD = """# Configuration

Every field, made from `segnext_jax.config.FIELDS`. The defaults are the paper's recipe
for ADE20K with SegNeXt-B; a file of [configs/](recipes.md) holds what differs from
them. Set a field on the command line with `--config.FIELD=VALUE`, several values
separated by commas: `--config.data.crop_size=176,240`.

The last column says who uses a field: a **training** alone, **evaluation**, too, or
whatever loads a network (**prediction**, too). A command refuses a field that it does
not use. *Resumable* fields may differ when a run goes on.
"""


def render() -> str:
    """Return the page as Markdown: a section and a table for each part."""
    parts: dict[str, list[Field]] = {}
    for name, field in FIELDS.items():
        section = name.rpartition(".")[0].split(".")[0]
        parts.setdefault(section or "The run", []).append(field)
    tables = []
    for section, fields in parts.items():
        rows = "\n".join(map(_row, fields))
        head = "| field | default | may be | meaning | used by |\n|---|---|---|---|---|"
        tables.append(f"## {section}\n\n{head}\n{rows}\n")
    return "\n".join([_HEAD, *tables])


def _row(field: Field) -> str:
    meaning = field.meaning
    if field.source:
        meaning += f" Default: {field.source}"
    if field.only:
        meaning += f" Only with `{field.only[0]}={field.only[1]}`."
    users = {PREDICTION: "prediction, too", EVALUATION: "evaluation, too"}
    used_by = users.get(field.used_by, "training")
    if field.is_resumable:
        used_by += "; *resumable*"
    cells = (
        f"`{field.name}`",
        f"`{shown(field.default)}`",
        field.kind.requirement,
        meaning,
        used_by,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
