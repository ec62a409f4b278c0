"""What an ONNX file asks a runtime to do, read without running it: operators, operator sets, files elsewhere.

onnxruntime loads what it is given: other people's operators, weights from any path, loops without end. A model that
comes over a topic is looked at first, in these few fields of ONNX's protobuf, whose numbers never change
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Weights are passed over, not copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

OPSETS = range(11, 24)
"""Versions of ONNX's own operator set that are taken: from the first with all of `OPERATORS` to the newest tried."""
DEPTH_MAX = 8
"""Graphs within graphs; those that are taken have none."""
NODES_MAX = 20_000
"""The demo shop's model has some hundred."""
FIELDS_MAX = 20 * NODES_MAX
"""Fields that are read: the demo shop's model has some thousand. Protobuf lets one come any number of times, in two
bytes, and a file of nothing else would be read for twenty seconds."""
OPERATORS = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip",
    "Concat", "Constant", "ConstantOfShape", "Conv", "Cos", "CumSum", "Div", "Einsum", "Elu", "Equal",
    "Erf", "Exp", "Expand", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm",
    "GlobalAveragePool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "MatMul", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "PRelu",
    "Pad", "Pow", "RNN", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round",
    "ScatterElements", "ScatterND", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax",
    "Softplus", "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze", "Where", "Xor", "DequantizeLinear", "DynamicQuantizeLinear",
    "MatMulInteger", "QuantizeLinear", "QLinearMatMul"
})  # fmt: skip
"""Operators of ONNX's own set that compute what their inputs say: none draws at random (a receipt could not be computed
again), as Dropout does where an input says so, none loops or branches (a graph could run for ever), none makes strings
or sequences."""
STANDARD = ("", "ai.onnx")
"""ONNX's own domain has two spellings."""


class GraphError(ValueError):
    """Bytes that are no ONNX model."""


@dataclass(slots=True)
class Graph:
    """What a file asks for. ``operators``: (domain, name); ``outside``: tensors whose values are in other files.

    ``fields``: those that were read to know it.
    """

    operators: set[tuple[str, str]] = field(default_factory=set)
    opsets: dict[str, int] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    functions: int = 0
    nodes: int = 0
    fields: int = 0

    def objections(self) -> list[tuple[str, str]]:
        """What must not be run: (what it has, what is expected); none for a graph that may."""
        found = []
        strange = sorted(
            f"{domain}:{name}" if domain not in STANDARD else name
            for domain, name in self.operators
            if domain not in STANDARD or name not in OPERATORS
        )
        if strange or self.functions:
            told = ", ".join(strange[:5]) or f"{self.functions} functions of its own"
            found.append((f"uses {told}", "operators of ONNX's own set without loops, branches and chance"))
        opset = max((self.opsets[domain] for domain in STANDARD if domain in self.opsets), default=0)
        if opset not in OPSETS:
            found.append((f"is of operator set {opset}", f"{OPSETS[0]} to {OPSETS[-1]}"))
        if self.outside:
            found.append((f"keeps {', '.join(self.outside[:3])} in other files", "an ONNX graph in one file"))
        if self.nodes > NODES_MAX:
            found.append((f"has {self.nodes:,} nodes", f"at most {NODES_MAX:,}"))
        return found


def read_graph(content: bytes) -> Graph:
    """What ``content``, a serialized ``ModelProto``, asks for. Raises `GraphError`."""
    out, has_graph = Graph(), False
    for number, value in _fields(memoryview(content), out):
        if number == 7:  # ModelProto.graph
            has_graph = True
            _graph(_message(value), out, DEPTH_MAX)
        elif number == 8:  # ModelProto.opset_import
            domain, version = "", 0
            for inner, told in _fields(_message(value), out):
                domain = _text(told) if inner == 1 else domain
                version = told if inner == 2 and isinstance(told, int) else version
            out.opsets[domain] = version
        elif number == 25:  # ModelProto.functions
            out.functions += 1
    if not has_graph:
        raise GraphError("it has no graph")
    return out


def _graph(content: memoryview, out: Graph, depth: int) -> None:
    if not depth:
        raise GraphError(f"its graphs are nested more than {DEPTH_MAX} deep")
    for number, value in _fields(content, out):
        if number == 1:  # GraphProto.node
            _node(_message(value), out, depth)
        elif number == 5:  # GraphProto.initializer
            _tensor(_message(value), out)
        elif number == 15:  # GraphProto.sparse_initializer
            _sparse(_message(value), out)


def _node(content: memoryview, out: Graph, depth: int) -> None:
    name = domain = ""
    for number, value in _fields(content, out):
        if number == 4:  # NodeProto.op_type
            name = _text(value)
        elif number == 7:  # NodeProto.domain
            domain = _text(value)
        elif number == 5:  # NodeProto.attribute
            for inner, told in _fields(_message(value), out):
                if inner in (5, 10):  # AttributeProto.t, tensors
                    _tensor(_message(told), out)
                elif inner in (22, 23):  # AttributeProto.sparse_tensor, sparse_tensors
                    _sparse(_message(told), out)
                elif inner in (6, 11):  # AttributeProto.g, graphs
                    _graph(_message(told), out, depth - 1)
    out.operators.add((domain, name))
    out.nodes += 1


def _sparse(content: memoryview, out: Graph) -> None:
    for number, value in _fields(content, out):
        if number in (1, 2):  # SparseTensorProto.values, indices
            _tensor(_message(value), out)


def _tensor(content: memoryview, out: Graph) -> None:
    name, outside = "", False
    for number, value in _fields(content, out):
        if number == 8:  # TensorProto.name
            name = _text(value)
        elif number == 13 or (number == 14 and value != 0):  # TensorProto.external_data, data_location
            outside = True
    if outside:
        out.outside.append(name or "a constant")


def _message(value: "int | memoryview") -> memoryview:
    if isinstance(value, int):
        raise GraphError("a number stands where a message is expected")
    return value


def _text(value: "int | memoryview") -> str:
    return bytes(_message(value)[:256]).decode(errors="replace")


def _fields(content: memoryview, out: Graph) -> "Iterator[tuple[int, int | memoryview]]":
    """Numbers and values of a protobuf message's fields: an int, or the bytes of a message or string.

    Fields of fixed width are passed over: none that is read here is one, and protobuf knows no field by another type.
    """
    at = 0
    while at < len(content):
        out.fields += 1
        if out.fields > FIELDS_MAX:
            raise GraphError(f"it has more than {FIELDS_MAX:,} fields")
        tag, at = _varint(content, at)
        if not 8 <= tag < 2**32:  # protobuf ends at field 0, and drops what is beyond 32 bits: another field to it
            raise GraphError(f"the tag {tag:,} is no field's")
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(content, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise GraphError(f"field {number} is of wire type {wire}")
        if size > len(content) - at:
            raise GraphError(f"field {number} has {size:,} bytes, {len(content) - at:,} are left")
        if wire == 2:
            yield number, content[at : at + size]
        at += size


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise GraphError("it ends within a number")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise GraphError("a number has more than ten bytes")
