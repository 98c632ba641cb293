"""Nested dicts to flat ones and back, for pyright.

flax has no annotations here: pyright infers leaves that may be dicts.
"""

from collections.abc import Mapping
from typing import Any, overload

@overload
def flatten_dict(xs: Mapping[str, Any], *, sep: str) -> dict[str, Any]: ...
@overload
def flatten_dict(
    xs: Mapping[str, Any], *, sep: None = None
) -> dict[tuple[str, ...], Any]: ...
def unflatten_dict(xs: Mapping[Any, Any], sep: str | None = None) -> dict[str, Any]: ...
