"""Kernels, bytes and exchanges of a compiled program, read from its optimized HLO text.

Counted is every instruction of the entry computation, and of the bodies of its loops
(times their trip counts), that runs as a kernel or library call: its operands and its
results, each once. That is the traffic to memory where nothing stays in a cache;
parameters, tuples, bitcasts and constants are free.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator

_SIZES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
}
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("iota", "partition-id", "replica-id", "opt-barrier", "conditional"),
}
# Layouts of TPUs have brackets of their own: (f32[32]{0:T(128)S(1)}, ...).
_INSTRUCTION = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_PART = re.compile(
    r"(strips|conv0|dwconv|fc1|fc2|proj_1|proj_2|conv3|norm\d|hamburger|squeeze|align|"
    r"conv_seg|patch_embed\d|photometric|adam)"
)
_EXCHANGE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(-start)?$"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """An instruction that moves bytes.

    Attributes:
      num_bytes: Bytes of operands and results, summed over all runs of the instruction.
      times: How often the instruction runs.
      operation: Name of the HLO operation.
      name: The name of the instruction.
      source: The place in the network that the instruction comes from; "" where XLA
        does not say.
      is_asynchronous: Whether other work goes on while the instruction runs.
    """

    num_bytes: int
    times: int
    operation: str
    name: str
    source: str
    is_asynchronous: bool = False

    @property
    def group(self) -> str:
        """Side (forward, backward, loss, rest) and part of the network."""
        if not self.source:
            return "unnamed"
        if "jvp()" in self.source:
            side = "loss"
        elif "transpose(jvp" in self.source:
            side = "backward"
        else:
            side = "forward" if "jvp(" in self.source else "rest"
        part = _PART.search(self.source)
        return f"{side} {part.group(1) if part else ''}".strip()


def read(text: str) -> list[Row]:
    """Return the rows of an HLO text, those that move most first."""
    found, entry = _computations(text)
    if entry is None:
        raise ValueError(
            "a program must have an entry computation: got a text without a line that "
            "begins with ENTRY. Write it by compiled.as_text()."
        )
    return sorted(_rows(found, entry, 1), key=lambda row: -row.num_bytes)


def totals(rows: list[Row]) -> dict[str, float]:
    """Return kernels, gigabytes, and exchanges with their gigabytes.

    An exchange's bytes are its results' and operands', as a kernel's.
    """
    exchanges = [row for row in rows if _EXCHANGE.match(row.operation)]
    return {
        "kernels": sum(row.times for row in rows),
        "gigabytes": round(sum(row.num_bytes for row in rows) / 1e9, 2),
        "exchanges": sum(row.times for row in exchanges),
        "asynchronous": sum(row.times for row in exchanges if row.is_asynchronous),
        "exchanged_gigabytes": round(sum(r.num_bytes for r in exchanges) / 1e9, 3),
    }


def by_group(rows: list[Row]) -> list[tuple[str, int, int]]:
    """Return (group, kernels, bytes), those that move most first."""
    moved: collections.Counter[str] = collections.Counter()
    kernels: collections.Counter[str] = collections.Counter()
    for row in rows:
        moved[row.group] += row.num_bytes
        kernels[row.group] += row.times
    return [(name, kernels[name], size) for name, size in moved.most_common()]


def _num_bytes(shape: str) -> int:
    total = 0
    for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        if kind in _SIZES:
            count = 1
            for dim in filter(None, dims.split(",")):
                count *= int(dim)
            total += count * _SIZES[kind]
    return total


def _computations(text: str) -> tuple[dict[str, list[str]], str | None]:
    found: dict[str, list[str]] = {}
    entry = current = None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
        if head:
            current = head.group(2)
            found[current] = []
            entry = current if head.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            found[current].append(line.strip())
    return found, entry


def _rows(found: dict[str, list[str]], name: str, times: int) -> Iterator[Row]:
    shapes: dict[str, int] = {}
    for line in found[name]:
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        result, shape, operation, rest = match.groups()
        shapes[result] = _num_bytes(shape)
        if operation == "while":
            body = re.search(r"body=%?([\w.\-]+)", rest)
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
            assert body is not None
            count = int(trips.group(1)) if trips else 1
            yield from _rows(found, body.group(1), times * count)
        elif operation == "call":
            callee = re.search(r"to_apply=%?([\w.\-]+)", rest)
            if callee:
                yield from _rows(found, callee.group(1), times)
        elif operation not in _FREE:
            operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
            moved = shapes[result] + sum(shapes.get(o, 0) for o in operands)
            source = re.search(r'op_name="([^"]*)"', rest)
            yield Row(
                times * moved,
                times,
                operation,
                result,
                source.group(1) if source else "",
                operation.endswith("-start") and '"is_sync":true' not in rest,
            )
