"""The condition of `--where`: Python's syntax for comparisons, as an expression of Arrow.

    label == 3 and split == 'train'        width >= 64 or not (source in ('a', 'b'))        url is not None

Python parses the text, and only names of columns, constants, comparisons, `in`, `is None`, `and`, `or` and
`not` are taken. Nothing is evaluated.
"""

import ast
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from convvae_service.images.location import import_package
from convvae_service.images.source import BadSource

__all__ = ["condition_columns", "parse_condition"]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MAX_LETTERS = 10_000


def parse_condition(text: str) -> Any:
    """Return the condition as a pyarrow expression.

    Raises:
        BadSource: The text is not such a condition; the message names the part.
    """
    return _Condition(text).convert(_parse(text))


def condition_columns(text: str) -> list[str]:
    """Return the names of the columns in a condition, each once."""
    names = [node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(names))


def _parse(text: str) -> ast.expr:
    try:
        if len(text) > _MAX_LETTERS:
            raise ValueError
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadSource(f"--where {text[:80]!r} is not a condition such as label == 3") from None


class _Condition:
    def __init__(self, text: str) -> None:
        self._text = text
        self._compute = import_package("pyarrow.compute")

    def convert(self, node: ast.expr) -> Any:
        """Return an expression that is true or false."""
        match node:
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                return reduce(join, map(self.convert, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.convert(operand)
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others[:-1]], ops, others, strict=True)
                return reduce(operator.and_, (self._compare(*pair) for pair in pairs))
            case ast.Name(id=name):
                return self._compute.field(name)
        raise self._refused(node)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        match op:
            case ast.Is() | ast.IsNot():
                if not (isinstance(right, ast.Constant) and right.value is None):
                    raise self._refused(right)
                value = self._value(left)
                return value.is_null() if isinstance(op, ast.Is) else value.is_valid()
            case ast.In() | ast.NotIn():
                found = self._value(left).isin(self._constants(right))
                return found if isinstance(op, ast.In) else ~found
        return _COMPARISONS[type(op)](self._value(left), self._value(right))

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self._compute.field(node.id)
        return self._compute.scalar(self._constant(node))

    def _constant(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
        raise self._refused(node)

    def _constants(self, node: ast.expr) -> Sequence[Any]:
        if not isinstance(node, ast.Tuple | ast.List | ast.Set):
            raise self._refused(node)
        return [self._constant(value) for value in node.elts]

    def _refused(self, node: ast.expr) -> BadSource:
        part = (ast.get_source_segment(self._text.strip(), node) or self._text)[:80]
        return BadSource(
            f"--where cannot have {part!r}: it takes columns, numbers, texts, comparisons, in, is None, and,"
            " or, not"
        )
