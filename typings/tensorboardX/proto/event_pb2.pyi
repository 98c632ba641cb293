# Made from a description when it is imported.
from typing import Any

def __getattr__(name: str) -> Any: ...
