# An extra, which need not be installed where the types are checked.
from typing import Any

def __getattr__(name: str) -> Any: ...
