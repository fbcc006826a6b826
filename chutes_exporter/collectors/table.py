"""Tables: metrics that are declared as fields or functions of the records of one feed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import UNSET

from chutes_exporter.collectors import relevance
from chutes_exporter.collectors.base import Answers, LabelValue, Miners, Part, Samples, distinct
from chutes_exporter.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.metric import Stability

    Sample = tuple[tuple[LabelValue, ...], float | None]

R = TypeVar("R")

Value = str | Callable[[Any], Any]
"""A field of a record (``a.b`` is the field b of its field a), or a function of the record.

None is unknown.
"""


@dataclass(frozen=True)
class Row:
    """A metric with a value of each record.

    Attributes:
        value: The value. With ``by``, a value that has numbers by label value, or a field for each
            label value.
        convert: A function of the value, unless that is unknown.
        by: One more label.
        whole: Whether the value is unknown while a record may be missing.
        missing: The value of a watched miner without a record.
    """

    text: str
    value: Value | Mapping[str, Value]
    _: KW_ONLY
    convert: Callable[[Any], Any] | None = None
    by: str = ""
    whole: bool = False
    missing: float | None = None
    stability: Stability = "stable"

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels after the key."""
        return (self.by,) if self.by else ()

    @cached_property
    def _get(self) -> Callable[[Any], Any]:
        return _getter(self.value)

    def samples(self, record: Any) -> Iterable[Sample]:
        """Return the values of a record, with their labels after the key."""
        value = self._get(record)
        if self.convert is not None and value is not None:
            value = self.convert(value)
        return (
            [((label,), number) for label, number in (value or {}).items()]
            if self.by
            else [((), value)]
        )


@dataclass(frozen=True)
class Info(Row):
    """A metric with texts of each record, by label.

    With ``only``, the records have them for which that is true.
    """

    value: Mapping[str, Value]
    _: KW_ONLY
    only: Value = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels after the key."""
        return tuple(self.value)

    @cached_property
    def _has_texts(self) -> Callable[[Any], Any]:
        return _getter(self.only or (lambda _: True))

    def samples(self, record: Any) -> Iterable[Sample]:
        """Return the texts of a record, as labels after the key."""
        return [(tuple(self._get(record).values()), 1)] if self._has_texts(record) else []


@dataclass(frozen=True)
class Total:
    """A metric with a value of all records, or of each group of them.

    It is absent while a record may be missing.

    Attributes:
        function: Makes the value of a list. With a label and without ``by``, makes values by label
            value.
        of: The values in the list, of which all must be known. Without it, the list has the
            records.
        by: The group of a record, or a list of its groups, which must be known.
        label: The label, if it is not the field. Of ``hotkey``, only watched miners have values, or
            all exported
            ones if the table declares the field with the miner.
        among: All possible groups. Without it, only a watched miner may have no record.
    """

    text: str
    function: Callable[[list[Any]], Any]
    _: KW_ONLY
    of: Value = lambda record: record
    by: Value = ""
    label: str = ""
    among: Sequence[str] = ()
    stability: Stability = "stable"

    whole = True

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels after that of the miner."""
        return (self.label or str(self.by),) if self.label or self.by else ()

    def samples(self, records: list[Any], watched: list[str]) -> Iterable[Sample]:
        """Return the values of the records, with labels."""
        if self.by:
            return self._of_groups(records, watched if self.label == "hotkey" else self.among)
        value = self._value(records)
        return (
            [((label,), number) for label, number in value.items()] if self.label else [((), value)]
        )

    def _of_groups(self, records: list[Any], among: Sequence[str]) -> Iterable[Sample]:
        """Return the value of each group, also of those in ``among``: nothing if the group of a
        record is unknown.
        """
        groups: dict[str, list[Any]] = {group: [] for group in among}
        for record in records:
            found = _getter(self.by)(record)
            if found is None:
                return []
            for group in found if isinstance(found, list) else [found]:
                groups.setdefault(group, []).append(record)
        return [((group,), self._value(of_group)) for group, of_group in groups.items()]

    def _value(self, records: list[Any]) -> Any:
        values = list(map(_getter(self.of), records))
        return None if any(value is None for value in values) else self.function(values)


def add_rows(
    rows: Mapping[Metric, Row], record: Any, key: tuple[LabelValue, ...], out: Samples
) -> None:
    """Add the samples of a record with a key."""
    for metric, row in rows.items():
        for labels, value in row.samples(record):
            out.add(metric, value, *key, *labels)


class Table(Part, Generic[R]):
    """Metrics of the records of one feed, labelled with the miner that the feed is about, and with
    the record's key.

    Args:
        feed: The feed.
        joined: Other feeds. While one of them is not whole, all metrics are absent.
        key: The fields that identify a record, separated by spaces. Of records with the same key,
            the first counts.
        label: The labels of the key, if they have other names.
        records: Makes the records of the answers, if the first is no list of them. None leaves out
            all metrics.
        miner: The field with the miner of a record, if the feed is about all miners. Only exported
            miners have samples.
        of_chutes: Whether a record is about its ``chute_id``. Then only exported chutes have
            samples.
        metrics: The metrics by name.
    """

    def __init__(
        self,
        feed: Feed[Any],
        *joined: Feed[Any],
        key: str = "",
        label: str = "",
        records: Callable[..., list[R] | None] = list,
        miner: str = "",
        of_chutes: bool = False,
        **metrics: Row | Total,
    ) -> None:
        self.feed = feed
        self.key = key.split()
        self._joined = joined
        self._records = records
        self._miner = miner
        self._of_chutes = of_chutes
        self._miner_label = ("hotkey",) if feed.endpoint.scope != "platform" else ()
        declared = {
            self._declare(name, of, (label or key).split()): of for name, of in metrics.items()
        }
        self.rows = {metric: row for metric, row in declared.items() if not isinstance(row, Total)}
        self._totals = {
            metric: total for metric, total in declared.items() if isinstance(total, Total)
        }
        also = relevance.FEEDS if of_chutes else ()
        super().__init__((feed, *joined), [*declared], self._collect, also, of_chutes)

    def _declare(self, name: str, of: Row | Total, of_key: list[str]) -> Metric:
        """Return a metric of this table. A total has no label of the key."""
        labels = (*self._miner_label, *(() if isinstance(of, Total) else of_key), *of.labels)
        source = ", ".join(feed.endpoint.source for feed in (self.feed, *self._joined))
        if fields := _fields(of):
            source += f": {fields}"
        needed = (self.feed, *self._joined) if of.whole else self._joined
        return Metric(
            name,
            of.text,
            labels,
            source,
            of.stability,
            whole=frozenset(feed.name for feed in needed),
        )

    def _key_of(self, record: R) -> tuple[Any, ...]:
        return tuple([getattr(record, field) for field in self.key])

    def _collect(self, answers: Answers, miners: Miners, out: Samples) -> None:
        """Add the samples of records and totals.

        If they are about miners, those of exported miners are added.
        """
        records = self._records(*(answers[feed] for feed in self.feeds))
        if records is None:
            return
        if self.key:
            records = distinct(records, self._key_of)
        hotkey = (miners.hotkey,) if self._miner_label else ()
        chutes = relevance.relevant_chutes(answers, miners) if self._of_chutes else None
        for record in records:
            if chutes is not None and getattr(record, "chute_id", None) not in chutes:
                continue
            if not self._miner or miners.exports(getattr(record, self._miner)):
                add_rows(self.rows, record, (*hotkey, *self._key_of(record)), out)
        watched = sorted(miners.watched)
        exports = miners.exports if self._miner else miners.watched.__contains__
        self._add_missing(answers, records, watched, out)
        for metric, total in self._totals.items():
            for labels, value in total.samples(records, watched):
                if total.label != "hotkey" or exports(str(labels[0])):
                    out.add(metric, value, *hotkey, *labels)

    def _add_missing(
        self, answers: Answers, records: list[R], watched: list[str], out: Samples
    ) -> None:
        """Add the value of each watched miner without a record, for each rest of the key that other
        miners have.
        """
        missing = {
            metric: row.missing for metric, row in self.rows.items() if row.missing is not None
        }
        keys = {self._key_of(record): None for record in records if missing}
        wanted = [
            (miner, *rest) for rest in dict.fromkeys(key[1:] for key in keys) for miner in watched
        ]
        for key in answers.unlisted(self.feed, wanted, keys):
            for metric, value in missing.items():
                out.add(metric, value, *key)


def _getter(value: Any) -> Callable[[Any], Any]:
    """Return the function of a record that returns a declared value, or values by label."""
    if isinstance(value, Mapping):
        getters = {label: _getter(one) for label, one in value.items()}
        return lambda record: {label: get(record) for label, get in getters.items()}
    return _field(value.split(".")) if isinstance(value, str) else value


def _field(path: list[str]) -> Callable[[Any], Any]:
    def get(record: Any) -> Any:
        for name in path:
            record = getattr(record, name)
            if record is None or record is UNSET:
                return None
        return record

    return get


def _fields(of: Row | Total) -> str:
    """Return the fields that a metric declares."""
    values = [of.of, of.by] if isinstance(of, Total) else [of.value]
    fields = [
        one
        for value in values
        for one in (value.values() if isinstance(value, Mapping) else [value])
    ]
    return ", ".join(dict.fromkeys(field for field in fields if isinstance(field, str) and field))
