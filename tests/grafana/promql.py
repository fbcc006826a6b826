"""Parse a query: its selectors, and its binary operations between series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import promql_parser

from tests.grafana.scenes import filled_in

if TYPE_CHECKING:
    from collections.abc import Callable


def _collect(expression: str, take: Callable[[promql_parser.Expr], None]) -> None:
    promql_parser.walk(promql_parser.parse(filled_in(expression, ["$hotkey"])), take)


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return all selectors of a query, those of ranges included."""
    found: list[promql_parser.VectorSelector] = []

    def take(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            found.append(part)

    _collect(expression, take)
    return found


def metrics(expression: str) -> set[str]:
    """Return the names of metrics that a query reads."""
    return {selector.name or "" for selector in selectors(expression)}


def _scalar(part: promql_parser.Expr) -> bool:
    if isinstance(part, promql_parser.ParenExpr | promql_parser.UnaryExpr):
        return _scalar(part.expr)
    if isinstance(part, promql_parser.BinaryExpr):
        return _scalar(part.lhs) and _scalar(part.rhs)
    if isinstance(part, promql_parser.Call):
        return part.func.name in ("time", "scalar")
    return isinstance(part, promql_parser.NumberLiteral)


def _union(part: promql_parser.BinaryExpr) -> bool:
    """Tell whether series are put together. They meet on all labels unless something else is said."""
    return str(part.op) == "or"


def implicit_joins(expression: str) -> list[str]:
    """Return the places where series meet without its being said on which labels."""
    found: list[str] = []

    def take(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.BinaryExpr) and not (_scalar(part.lhs) or _scalar(part.rhs) or _union(part)):
            matching = part.modifier.matching if part.modifier is not None else None
            if matching is None or matching.type != promql_parser.LabelModifierType.Include:
                found.append(part.prettify())

    _collect(expression, take)
    return found


def calls(expression: str) -> list[tuple[str, str]]:
    """Return the functions of a query, with the text of what they are called on."""
    found: list[tuple[str, str]] = []

    def take(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.Call):
            found.append((part.func.name, part.prettify()))

    _collect(expression, take)
    return found
