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
        if not self.by:
            return [((), value)]
        return _by_label(value or {})


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
        if not self._has_texts(record):
            return []
        return [(tuple(self._get(record).values()), 1)]


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
        label = self.label or str(self.by)
        return (label,) if label else ()

    def samples(self, records: list[Any], watched: list[str]) -> Iterable[Sample]:
        """Return the values of the records, with labels."""
        if self.by:
            return self._of_groups(records, watched if self.label == "hotkey" else self.among)
        value = self._value(records)
        if not self.label:
            return [((), value)]
        return _by_label(value)

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
        if any(value is None for value in values):
            return None
        return self.function(values)


def _by_label(values: Mapping[str, float | None]) -> list[Sample]:
    return [((label,), value) for label, value in values.items()]


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
        self.rows: dict[Metric, Row] = {}
        self._totals: dict[Metric, Total] = {}
        declared = []
        for name, of in metrics.items():
            if isinstance(of, Total):
                metric = self._declare(name, of, of.labels)
                self._totals[metric] = of
            else:
                metric = self._declare(name, of, (*(label or key).split(), *of.labels))
                self.rows[metric] = of
            declared.append(metric)
        also = relevance.FEEDS if of_chutes else ()
        super().__init__((feed, *joined), declared, self._collect, also, of_chutes)

    def _declare(self, name: str, of: Row | Total, labels: tuple[str, ...]) -> Metric:
        """Return a metric of this table, with labels after that of the miner."""
        source = ", ".join(feed.endpoint.source for feed in (self.feed, *self._joined))
        if fields := _fields(of):
            source += f": {fields}"
        needed = (self.feed, *self._joined) if of.whole else self._joined
        return Metric(
            name,
            of.text,
            (*self._miner_label, *labels),
            source,
            of.stability,
            whole=frozenset(feed.name for feed in needed),
        )

    def _key_of(self, record: R) -> tuple[Any, ...]:
        return tuple([getattr(record, field) for field in self.key])

    def _collect(self, answers: Answers, miners: Miners, out: Samples) -> None:
        """Add the samples of records and totals, if they are about miners only those of exported
        miners.
        """
        records = self._records(*(answers[feed] for feed in self.feeds))
        if records is None:
            return
        if self.key:
            records = distinct(records, self._key_of)
        hotkey = (miners.hotkey,) if self._miner_label else ()
        chutes = relevance.relevant_chutes(answers, miners) if self._of_chutes else None
        for record in records:
            if self._is_exported(record, miners, chutes):
                add_rows(self.rows, record, (*hotkey, *self._key_of(record)), out)
        self._add_missing(answers, records, sorted(miners.watched), out)
        self._add_totals(records, miners, hotkey, out)

    def _is_exported(self, record: R, miners: Miners, chutes: set[str] | None) -> bool:
        if chutes is not None and getattr(record, "chute_id", None) not in chutes:
            return False
        return not self._miner or miners.exports(getattr(record, self._miner))

    def _add_missing(
        self, answers: Answers, records: list[R], watched: list[str], out: Samples
    ) -> None:
        """Add the value of each watched miner without a record, for each rest of the key that other
        miners have.
        """
        missing = {
            metric: row.missing for metric, row in self.rows.items() if row.missing is not None
        }
        if not missing:
            return
        keys = dict.fromkeys(map(self._key_of, records))
        for rest in dict.fromkeys(key[1:] for key in keys):
            wanted = [(miner, *rest) for miner in watched]
            for key in answers.unlisted(self.feed, wanted, keys):
                for metric, value in missing.items():
                    out.add(metric, value, *key)

    def _add_totals(
        self, records: list[R], miners: Miners, hotkey: tuple[str, ...], out: Samples
    ) -> None:
        watched = sorted(miners.watched)
        exports = miners.exports if self._miner else miners.watched.__contains__
        for metric, total in self._totals.items():
            for labels, value in total.samples(records, watched):
                if total.label != "hotkey" or exports(str(labels[0])):
                    out.add(metric, value, *hotkey, *labels)


def _getter(value: Value | Mapping[str, Value]) -> Callable[[Any], Any]:
    """Return the function of a record that returns a declared value, or values by label."""
    if isinstance(value, Mapping):
        return _values_by_label(value)
    if isinstance(value, str):
        return _field(value.split("."))
    return value


def _values_by_label(values: Mapping[str, Value]) -> Callable[[Any], dict[str, Any]]:
    getters = {label: _getter(value) for label, value in values.items()}

    def get(record: Any) -> dict[str, Any]:
        return {label: get_one(record) for label, get_one in getters.items()}

    return get


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
    values: list[Value] = []
    if isinstance(of, Total):
        values += [of.of, of.by]
    elif isinstance(of.value, Mapping):
        values += of.value.values()
    else:
        values.append(of.value)
    fields = [value for value in values if isinstance(value, str) and value]
    return ", ".join(dict.fromkeys(fields))
