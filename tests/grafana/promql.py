"""Parse a query: its selectors, its functions, and its binary operations between series."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import promql_parser

from tests.grafana.scenes import filled_in

if TYPE_CHECKING:
    from promql_parser import Expr

_Part = TypeVar("_Part")


def _parts(expression: str, kind: type[_Part]) -> list[_Part]:
    """Return the parts of a query that are of a kind."""
    found: list[_Part] = []

    def take(part: Expr) -> None:
        if isinstance(part, kind):
            found.append(part)

    promql_parser.walk(promql_parser.parse(filled_in(expression, ["$hotkey"])), take)
    return found


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return all selectors of a query, those of ranges included."""
    return _parts(expression, promql_parser.VectorSelector)


def metrics(expression: str) -> set[str]:
    """Return the names of metrics that a query reads."""
    return {selector.name or "" for selector in selectors(expression)}


def calls(expression: str) -> list[tuple[str, str]]:
    """Return the functions of a query, with the text of what they are called on."""
    return [(part.func.name, part.prettify()) for part in _parts(expression, promql_parser.Call)]


def _scalar(part: Expr) -> bool:
    if isinstance(part, promql_parser.ParenExpr | promql_parser.UnaryExpr):
        return _scalar(part.expr)
    if isinstance(part, promql_parser.BinaryExpr):
        return _scalar(part.lhs) and _scalar(part.rhs)
    if isinstance(part, promql_parser.Call):
        return part.func.name in ("time", "scalar")
    return isinstance(part, promql_parser.NumberLiteral)


def implicit_joins(expression: str) -> list[str]:
    """Return the places where series meet without its being said on which labels.

    Unions meet on all of them.
    """
    found = []
    for part in _parts(expression, promql_parser.BinaryExpr):
        matching = part.modifier.matching if part.modifier is not None else None
        named = matching is not None and matching.type == promql_parser.LabelModifierType.Include
        if not (named or _scalar(part.lhs) or _scalar(part.rhs) or str(part.op) == "or"):
            found.append(part.prettify())
    return found
