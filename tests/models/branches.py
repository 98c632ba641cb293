"""What the published networks run of ops/ and models/, and a small network does not.

    python branches.py "[(((8, 16, ...), ...), (2, 32, 48), 'float32'), ...]" tiny base

takes small networks as `Variant`'s fields, shape of the batch, and type; then names of
published ones. They are traced, at inference and with the gradient in train mode, not
compiled. Writes JSON: ``instructions``, how many of Python's the published ones run,
and ``missing``, the places of those that the small ones do not.

A program of its own: what a process has traced once JAX does not trace again. For the
same reason the small networks come first: what is in JAX's caches then, they have run.
"""

import ast
import dataclasses
import gc
import json
import pathlib
import sys
from collections.abc import Callable
from types import CodeType

import jax
import jax.numpy as jnp

from segnext_jax.models import segnext
from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import VARIANTS, SegNeXt, Variant

PACKAGE = pathlib.Path(segnext.__file__).parents[1]
FILES = {str(f) for part in ("ops", "models") for f in (PACKAGE / part).rglob("*.py")}
Instructions = set[tuple[CodeType, int]]


def run_by(function: Callable[[], None]) -> Instructions:
    """Return the instructions of `FILES` that a call runs.

    Instructions, not lines: a conditional expression has two ways on one line.
    """
    seen: Instructions = set()

    def note(frame, event, argument):
        if event == "opcode":
            seen.add((frame.f_code, frame.f_lasti))
        return note

    def enter(frame, event, argument):
        # Called millions of times: a set is fastest.
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return note

    sys.settrace(enter)
    try:
        function()
    finally:
        sys.settrace(None)
    return seen


def traced(sizes: Variant, shape: tuple[int, int, int], dtype: str) -> Instructions:
    """Trace a network as the parity tests call it; return what runs."""
    # Not watched: the parity tests take PyTorch's weights.
    shapes = abstract_variables(SegNeXt(sizes, 7))
    model = SegNeXt(sizes, 7, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
    keys = {name: jax.random.key(0) for name in ("dropout", "nmf")}

    def total(params, others, images):
        options = {"train": True, "mutable": ["batch_stats"], "rngs": keys}
        logits, _ = model.apply({**others, "params": params}, images, **options)
        return jnp.sum(logits)

    def calls():
        variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
        images = jax.ShapeDtypeStruct((*shape, 3), dtype)
        jax.eval_shape(model.apply, variables, images)
        jax.eval_shape(jax.grad(total), variables.pop("params"), variables, images)

    with jax.enable_x64(dtype == "float64"):
        return run_by(calls)


def place(instruction: tuple[CodeType, int]) -> str:
    """Return file and line."""
    code, offset = instruction
    line = list(code.co_positions())[offset // 2][0]
    return f"{pathlib.Path(code.co_filename).relative_to(PACKAGE)}:{line}"


def main(small: list[tuple[tuple, tuple[int, int, int], str]], names: list[str]):
    """Write what is missing."""
    reached: Instructions = set()
    for fields, shape, dtype in small:
        reached |= traced(Variant(*fields), shape, dtype)
    published: Instructions = set()
    for name in names:
        # More blocks, which differ in the rate of drop path alone, run nothing else.
        sizes = dataclasses.replace(
            VARIANTS[name], depths=(1, 1, 1, 1), drop_path_rate=0.0
        )
        published |= traced(sizes, (1, 512, 512), "float32")
    missing = sorted({place(instruction) for instruction in published - reached})
    json.dump({"instructions": len(published), "missing": missing}, sys.stdout)


if __name__ == "__main__":
    gc.disable()  # A fifth of the time.
    main(ast.literal_eval(sys.argv[1]), sys.argv[2:])
