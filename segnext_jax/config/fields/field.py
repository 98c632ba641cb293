"""One field of a configuration."""

import dataclasses
from typing import Any

from segnext_jax.config.kinds import Kind, shown

SEGMENTATION = ("task", "segmentation")
CLASSIFICATION = ("task", "classification")

# Who uses a field: a training alone; --mode=evaluate, too; or whatever loads a network.
TRAINING, EVALUATION, PREDICTION = "training", "evaluation", "prediction"


@dataclasses.dataclass(frozen=True)
class Field:
    """What the program knows of one field.

    Attributes:
      name: ``"section.field"``.
      default: The value of `segnext_jax.config.base_config`.
      kind: What it may hold.
      meaning: One or more sentences, with the unit; what special values mean.
      source: Where the default comes from, if not from the paper's recipe for ADE20K.
      only: (field, value) without which the field is given in vain, and refused.
      used_by: `TRAINING`, `EVALUATION` or `PREDICTION`; the later ones include the
        earlier. A command refuses a field that it does not use.
      is_resumable: Whether a run may go on with another value: it changes neither the
        course of a training nor what a checkpoint means.
      changes_numbers: Whether an evaluation may give other numbers with another value.
    """

    name: str
    default: Any
    kind: Kind
    meaning: str
    source: str = ""
    only: tuple[str, str] | None = None
    used_by: str = TRAINING
    is_resumable: bool = False
    changes_numbers: bool = True

    def fault_of(self, value: Any) -> str:
        """Return why the field cannot have a value, in one sentence; empty: it can."""
        if self.kind.accepts(value):
            return ""
        return (
            f"config.{self.name} must be {self.kind.requirement}: got {shown(value)}."
        )
