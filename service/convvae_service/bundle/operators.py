"""The operators that a bundle's graphs may have.

An allowed operator ends. The size of its result depends on constants and on the shapes of its inputs, never
on the values of a caller's rows. So no call can make a graph run without end, or take memory without limit.
"""

from collections.abc import Collection, Iterator
from typing import Any

from convvae_service.bundle.errors import BundleError

__all__ = ["may_grow", "refuse_many_operators", "refuse_operators"]

# The operators that the exporter and the quantizer write. Their results are not far larger than their inputs.
_EXPORTED = """
Add BatchNormalization Cast Clip Constant Conv ConvTranspose DepthToSpace DequantizeLinear Div Elu Erf Exp
Flatten Gelu Gemm GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
LayerNormalization LeakyRelu Log LogSoftmax MatMul Max Min Mul Neg PRelu Pad Pow QLinearConv QLinearMatMul
QuantizeLinear Reciprocal ReduceMean Relu Reshape Round Selu Shape Sigmoid Slice Softmax Softplus
SpaceToDepth Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze
"""
# Operators of graphs from elsewhere.
_OTHER = """
Abs Acos Acosh And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BitShift BitwiseAnd BitwiseNot
BitwiseOr BitwiseXor CastLike Ceil Celu Concat ConstantOfShape ConvInteger Cos Cosh CumSum Det Dropout
DynamicQuantizeLinear Einsum Equal Expand EyeLike Floor Gather GatherElements GatherND GlobalAveragePool
GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample Hardmax IsInf IsNaN LRN Less LessOrEqual
LpNormalization LpPool MatMulInteger MaxPool Mean MeanVarianceNormalization Mish Mod Not OneHot Or Range
RMSNormalization ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd ReduceSum
ReduceSumSquare Resize ReverseSequence ScatterElements ScatterND Shrink Sign Sin Sinh Size Softsign Sum
Swish Tan ThresholdedRelu Tile TopK Trilu Upsample Where Xor
"""
_MICROSOFT = """
BiasGelu DynamicQuantizeMatMul FastGelu FusedConv FusedGemm FusedMatMul Gelu GroupNorm
MatMulIntegerToFloat QAttention QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv
QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearSoftmax QuickGelu
SkipGroupNorm SkipLayerNormalization
"""
# The converter of scikit-learn writes them to scale the values.
_ML = frozenset({"Imputer", "Normalizer", "Scaler"})
_PLAIN = frozenset(_EXPORTED.split())
_STANDARD = _PLAIN | frozenset(_OTHER.split())
_ALLOWED = {
    "": _STANDARD,
    "ai.onnx": _STANDARD,
    "ai.onnx.ml": _ML,
    "com.microsoft": frozenset(_MICROSOFT.split()),
}
# The inputs that set the size of a result.
_SIZE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
# The operators that may compute a constant: their results are not larger than their inputs.
_OF_CONSTANTS = """
Cast Constant DequantizeLinear Identity QuantizeLinear Reshape Squeeze Transpose Unsqueeze
"""
_FOR_CONSTANTS = frozenset(_OF_CONSTANTS.split())
_MAX_NODES = 20_000
# Kernels, strides and margins of a layer that the exporter can have written.
_MAX_LAYER_SIZE = 64


def refuse_many_operators(model: Any, name: str) -> None:
    """Check that a graph has few enough operators for the other checks to take little time.

    Raises:
        BundleError: It has too many.
    """
    count = sum(len(graph.node) for graph in model.graph)
    if count > _MAX_NODES:
        raise BundleError(f"{name} has {count} operators: {_MAX_NODES} are allowed")


def refuse_operators(model: Any, name: str) -> None:
    """Check that a graph has only allowed operators. Messages call the graph `name`.

    Args:
        model: The message `Model` of `onnx_file`.
        name: The file's name.

    Raises:
        BundleError: The graph has functions, subgraphs or an operator that is not allowed. Or it computes the
            size of a result from the values of its input.
    """
    if len(model.functions):
        raise BundleError(f"{name} has functions of its own: export it without them")
    nodes = list(_nodes(model))
    for node in nodes:
        operator, domain = _text(node.op_type), _text(node.domain)
        if operator not in _ALLOWED.get(domain, ()):
            full_name = f"{domain}:{operator}" if domain else operator
            raise BundleError(
                f"{name} has the operator {full_name[:80]!r}, which a bundle's graph may not have:"
                " docs/bundle.md lists those that it may"
            )
        if any(len(attribute.g) or len(attribute.graphs) for attribute in node.attribute):
            raise BundleError(f"{name} has a graph inside its operator {operator!r}: export it without")
    _refuse_sizes_from_values(model, nodes, name)


def may_grow(model: Any) -> bool:
    """Return whether a graph may take far more memory than its file and rows, as one with ConstantOfShape."""
    constants = {tensor.name: tensor for graph in model.graph for tensor in graph.initializer}
    nodes = list(_nodes(model))
    computed = _dependents(model, nodes)
    return any(
        _may_grow(node, constants)
        # ONNX Runtime computes constants when it loads a graph.
        or (computed.isdisjoint(node.input) and _text(node.op_type) not in _FOR_CONSTANTS)
        for node in nodes
    )


def _may_grow(node: Any, constants: dict[bytes, Any]) -> bool:
    if not node.domain.startswith(b"com.") and _text(node.op_type) not in _PLAIN:
        return True
    sizes = [abs(size) for attribute in node.attribute for size in attribute.ints]
    if node.op_type == b"Pad" and len(node.input) > 1:
        margins = constants.get(node.input[1])
        if margins is None or len(margins.raw_data) % 8:
            return True
        data = margins.raw_data
        sizes += [
            abs(int.from_bytes(data[at : at + 8], "little", signed=True)) for at in range(0, len(data), 8)
        ]
    return max(sizes, default=0) > _MAX_LAYER_SIZE


def _refuse_sizes_from_values(model: Any, nodes: list[Any], name: str) -> None:
    """Refuse sizes from the values of rows. A shape is no value: it depends on the number of rows alone."""
    values = _dependents(model, nodes, except_of=("Shape", "Size"))
    for node in nodes:
        operator = _text(node.op_type)
        for place in _SIZE_INPUTS.get(operator, ()):
            if place < len(node.input) and node.input[place] in values:
                raise BundleError(
                    f"{name} computes the size of a result of {operator} from values of its input: sizes must"
                    " be constants, or come from shapes"
                )


def _dependents(model: Any, nodes: list[Any], *, except_of: Collection[str] = ()) -> set[bytes]:
    """Return the tensors that depend on the graph's inputs, except through some operators.

    The nodes have any order in the file.
    """
    users: dict[bytes, list[Any]] = {}
    for node in nodes:
        if _text(node.op_type) not in except_of:
            for tensor in node.input:
                users.setdefault(tensor, []).append(node)
    constants = {tensor.name for graph in model.graph for tensor in graph.initializer}
    found = {tensor.name for graph in model.graph for tensor in graph.input} - constants
    waiting = list(found)
    while waiting:
        # Each tensor is looked at once.
        for node in users.pop(waiting.pop(), ()):
            fresh = [output for output in node.output if output not in found]
            found.update(fresh)
            waiting += fresh
    return found


def _nodes(model: Any) -> Iterator[Any]:
    for graph in model.graph:
        yield from graph.node


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
