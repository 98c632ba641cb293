"""The nodes of an ONNX graph, written one after another; arrays become constants."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# The oldest set that has all that is needed: the most runtimes know it.
OPSET = 17
# The version of the file format in the same release of ONNX.
IR_VERSION = 8

Dims = Sequence[int | str]


class Nodes:
    """A graph that is being written. Values are known by their names.

    Nodes and constants are named after the modules that they belong to, see `scope`.
    """

    def __init__(self, dtype: str = "float32") -> None:
        """Begin with none.

        Args:
          dtype: Type of constants and values, float32 or float16. What is written
            inside `in_float32` is float32 with either.
        """
        self._dtype = self._usual_dtype = np.dtype(dtype)
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}
        self._path: list[str] = []

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put a name before those of all that is added inside."""
        self._path.append(name)
        yield
        self._path.pop()

    @contextlib.contextmanager
    def in_float32(self) -> Iterator[None]:
        """Write what is inside in float32; values come by `cast`, and go by it."""
        self._dtype = np.dtype(np.float32)
        yield
        self._dtype = self._usual_dtype

    def cast(self, value: str) -> str:
        """Convert a float32 or float16 value to the type that is written now."""
        if self._usual_dtype == np.float32:
            return value
        from onnx import helper

        return self.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(self._dtype))

    def add(self, operation: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Add one node and return the name of its output.

        Args:
          operation: ``op_type`` of ONNX.
          *inputs: Names of values, "" for one that is left out, and arrays.
          **attributes: Attributes of the operation.
        """
        from onnx import helper

        name = "/".join([*self._path, f"{operation}_{len(self._nodes)}"])
        names = [
            value
            if isinstance(value, str)
            else self._constant(f"{name}/{index}", value)
            for index, value in enumerate(inputs)
        ]
        self._nodes.append(
            helper.make_node(operation, names, [name], name=name, **attributes)
        )
        return name

    def _constant(self, name: str, value: np.ndarray) -> str:
        is_float = np.issubdtype(value.dtype, np.floating)
        self._constants[name] = value.astype(self._dtype) if is_float else value
        return name

    def model(
        self,
        inputs: tuple[str, np.dtype, Dims],
        outputs: Mapping[str, tuple[str, np.dtype, Dims]],
    ) -> Any:
        """Return the graph as ``onnx.ModelProto``, checked.

        Args:
          inputs: Name, type and dimensions of what goes in.
          outputs: The same of what comes out, by the value in the graph.
        """
        import onnx
        from onnx import helper, numpy_helper

        def info(name: str, dtype: np.dtype, dims: Dims) -> Any:
            kind = helper.np_dtype_to_tensor_dtype(dtype)
            return helper.make_tensor_value_info(name, kind, dims)

        results = [
            helper.make_node("Identity", [value], [name], name=name)
            for value, (name, _, _) in outputs.items()
        ]
        graph = helper.make_graph(
            [*self._nodes, *results],
            "SegNeXt",
            [info(*inputs)],
            [info(*output) for output in outputs.values()],
            [numpy_helper.from_array(v, name) for name, v in self._constants.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="segnext_jax",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def set_dims(value: Any, dims: Dims) -> None:
    """Set the dimensions of an input or output, unknown ones by name."""
    for dim, size in zip(value.type.tensor_type.shape.dim, dims, strict=True):
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size
