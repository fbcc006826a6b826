"""Parse a query: its selectors, its functions, and its binary operations between series."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import promql_parser

from tests.grafana.answers import filled_in

if TYPE_CHECKING:
    from promql_parser import Expr

_Part = TypeVar("_Part")


def _parts(expression: str, kind: type[_Part]) -> list[_Part]:
    """Return the parts of a query that are of a kind."""
    parts: list[_Part] = []

    def take(part: Expr) -> None:
        if isinstance(part, kind):
            parts.append(part)

    # With Grafana's variables, a query is not PromQL yet. Only `$hotkey` stays, as a text in which
    # tests can recognise it.
    query = promql_parser.parse(filled_in(expression, ["$hotkey"]))
    promql_parser.walk(query, take)
    return parts


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return all selectors of a query, those of ranges included."""
    return _parts(expression, promql_parser.VectorSelector)


def metrics(expression: str) -> set[str]:
    """Return the names of metrics that a query reads."""
    return {selector.name or "" for selector in selectors(expression)}


def _is_number(part: Expr) -> bool:
    """Return whether the result of a part is a number, and no series."""
    if isinstance(part, promql_parser.ParenExpr | promql_parser.UnaryExpr):
        return _is_number(part.expr)
    if isinstance(part, promql_parser.BinaryExpr):
        return _is_number(part.lhs) and _is_number(part.rhs)
    if isinstance(part, promql_parser.Call):
        return part.func.name in ("time", "scalar")
    return isinstance(part, promql_parser.NumberLiteral)


def implicit_joins(expression: str) -> list[str]:
    """Return the text of each operation between series that does not name their common labels
    with `on`.

    Unions (`or`) are left out, because they rightly compare all labels.
    """
    joins = []
    for part in _parts(expression, promql_parser.BinaryExpr):
        has_number = _is_number(part.lhs) or _is_number(part.rhs)
        is_union = str(part.op) == "or"
        if not has_number and not is_union and not _has_on(part):
            joins.append(part.prettify())
    return joins


def _has_on(part: promql_parser.BinaryExpr) -> bool:
    """Return whether an operation names labels with `on`."""
    if part.modifier is None or part.modifier.matching is None:
        return False
    # The other type is `ignoring`.
    return bool(part.modifier.matching.type == promql_parser.LabelModifierType.Include)
