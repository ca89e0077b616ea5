"""The condition of `--where`: Python's syntax for comparisons, as an expression of Arrow.

    label == 3 and split == 'train'        width >= 64 or not (source in ('a', 'b'))        url is not None
    day >= '2026-01-31'                    `class` == 3 or `my label` is None

Python parses the text, and only names of columns, constants, comparisons, `in`, `is None`, `and`, `or` and
`not` are taken. Nothing is evaluated. A name between backticks may have any letters.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

from convvae_service.images.column_constants import Constant, as_array, as_scalar
from convvae_service.images.packages import import_package
from convvae_service.images.source import BadSource

__all__ = ["Condition"]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MAX_LETTERS = 10_000
_MAX_DEPTH = 100
# Texts, which may have backticks, and names between backticks.
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`([^`]+)`""")


class Condition:
    """A condition on the columns of a table.

    Args:
        text: The condition.

    Raises:
        BadSource: The text is no condition; the message names the part.

    Attributes:
        columns: The names of the columns in it, each once.
    """

    def __init__(self, text: str) -> None:
        self._names: dict[str, str] = {}
        self._text = _QUOTED.sub(self._stand_in, text.strip())
        self._node = self._parse(text)
        self.expression(None)
        names = [self.name(node) for node in ast.walk(self._node) if isinstance(node, ast.Name)]
        self.columns = list(dict.fromkeys(names))

    def expression(self, schema: Any) -> Any:
        """Return the condition as an expression of pyarrow.

        Args:
            schema: The Arrow schema of the table, which has the columns. Its types say how constants are
                read. None takes them as they are.

        Raises:
            BadSource: A constant does not fit the type of its column.
        """
        return _Conversion(self, schema).convert(self._node)

    def _stand_in(self, match: "re.Match[str]") -> str:
        if match[1] is None:
            return match[0]
        name = f"_column_{len(self._names)}_"
        self._names[name] = match[1]
        return name

    def _parse(self, text: str) -> ast.expr:
        try:
            if len(text) > _MAX_LETTERS:
                raise ValueError
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of unknown escapes in texts
                node = ast.parse(self._text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise BadSource(
                f"--where {text[:80]!r} is not a condition such as label == 3, or `my label` == 3 for a name"
                " that is no Python name"
            ) from None
        level: list[ast.AST] = [node]
        for _ in range(_MAX_DEPTH):
            level = [child for parent in level for child in ast.iter_child_nodes(parent)]
        if level:
            raise BadSource(f"--where {text[:80]!r} is nested too deeply: it may have {_MAX_DEPTH} levels")
        return node

    def name(self, node: ast.Name) -> str:
        """Return the name of the column of a node."""
        return self._names.get(node.id, node.id)

    def part(self, node: ast.expr) -> str:
        """Return the text of a node, for a message."""
        text = ast.get_source_segment(self._text, node) or self._text
        for stand_in, name in self._names.items():
            text = text.replace(stand_in, f"`{name}`")
        return text[:80]

    def refused(self, node: ast.expr) -> BadSource:
        """Return the error of a part that is not taken."""
        return BadSource(
            f"--where cannot have {self.part(node)!r}: it takes columns, numbers, texts, comparisons, in with"
            " a list such as (1, 2), is None, and, or, not"
        )


class _Conversion:
    def __init__(self, condition: Condition, schema: Any) -> None:
        self._arrow = import_package("pyarrow")
        self._compute = import_package("pyarrow.compute")
        self._condition = condition
        self._schema = schema

    def convert(self, node: ast.expr) -> Any:
        """Return an expression that is true or false, or null if a value of a comparison is missing."""
        match node:
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                return reduce(join, map(self.convert, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.convert(operand)
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others[:-1]], ops, others, strict=True)
                return reduce(operator.and_, (self._compare(*pair) for pair in pairs))
            case ast.Name():
                return self._compute.field(self._condition.name(node))
        raise self._condition.refused(node)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        match op:
            case ast.Is() | ast.IsNot():
                if not (isinstance(right, ast.Constant) and right.value is None):
                    raise self._condition.refused(right)
                value = self._value(left, None)
                return value.is_null() if isinstance(op, ast.Is) else value.is_valid()
            case ast.In() | ast.NotIn():
                return self._is_in(left, right, negated=isinstance(op, ast.NotIn))
        kinds = self._kind(left), self._kind(right)
        return _COMPARISONS[type(op)](self._value(left, kinds[1]), self._value(right, kinds[0]))

    def _is_in(self, left: ast.expr, right: ast.expr, *, negated: bool) -> Any:
        if not isinstance(right, ast.Tuple | ast.List | ast.Set):
            raise self._condition.refused(right)
        kind, constants = self._kind(left), [self._constant(each) for each in right.elts]
        with self._fitting(right):
            array = as_array(constants, kind)
        value = self._value(left, None)
        found = value.isin(array)
        # A missing value is neither in nor not in, as it is neither equal nor unequal.
        missing = self._compute.scalar(self._arrow.scalar(None, self._arrow.bool_()))
        return self._compute.if_else(value.is_null(), missing, ~found if negated else found)

    def _kind(self, node: ast.expr) -> Any:
        """Return the Arrow type of a column, or None for a constant."""
        if self._schema is None or not isinstance(node, ast.Name):
            return None
        kind = self._schema.field(self._condition.name(node)).type
        return kind.value_type if self._arrow.types.is_dictionary(kind) else kind

    def _value(self, node: ast.expr, kind: Any) -> Any:
        """Return a column, or a constant that is compared with a column of a type."""
        if isinstance(node, ast.Name):
            return self._compute.field(self._condition.name(node))
        constant = self._constant(node)
        with self._fitting(node):
            return self._compute.scalar(as_scalar(constant, kind))

    def _constant(self, node: ast.expr) -> Constant:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
        raise self._condition.refused(node)

    @contextmanager
    def _fitting(self, node: ast.expr) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise BadSource(f"--where cannot have {self._condition.part(node)!r}: {error}") from None
