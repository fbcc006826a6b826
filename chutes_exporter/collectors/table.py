"""Tables: metrics that are declared as fields or functions of the records of one feed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, LabelValue, Miners, Part, Samples, distinct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.metric import Metric, Stability

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
        value: The value. With ``by``, a field or function that has a number for each value of that
            label, or a mapping that has a field or function for each.
        convert: A function of the value, if it is known.
        by: The name of one more label.
        complete: Whether the value is unknown while a record may be missing.
        missing: The value of a watched miner without a record.
    """

    text: str
    value: Value | Mapping[str, Value]
    _: KW_ONLY
    convert: Callable[[Any], Any] = lambda value: value
    by: str = ""
    complete: bool = False
    missing: float | None = None
    stability: Stability = "stable"

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels after the key."""
        return (self.by,) if self.by else ()

    @property
    def fields(self) -> list[str]:
        """The fields of a record that it shows."""
        values = self.value.values() if isinstance(self.value, Mapping) else [self.value]
        return [value for value in values if isinstance(value, str)]

    def samples(self, record: Any) -> Iterable[Sample]:
        """Return the values of a record, with their labels after the key."""
        value = _get(record, self.value)
        return _labelled(None if value is None else self.convert(value), self.by)


@dataclass(frozen=True)
class Info(Row):
    """A metric with texts of each record, by label. A record without any of them has no sample."""

    value: Mapping[str, Value]

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels after the key."""
        return tuple(self.value)

    def samples(self, record: Any) -> Iterable[Sample]:
        """Return the texts of a record, as labels after the key."""
        texts = tuple(_get(record, self.value).values())
        if all(text in (None, "") for text in texts):
            return []
        return [(texts, 1)]


@dataclass(frozen=True)
class Total:
    """A metric with a value of all records, or of each group of them.

    It is absent while a record may be missing.

    Attributes:
        function: Makes the value of a list. With a label and without ``by``, makes a mapping from
            label values to values.
        of: The values in the list, of which all must be known. Without it, the list has the
            records.
        by: The group of a record, or a list of its groups, which must be known. With the label
            ``hotkey``, watched miners have a value even without a record.
        label: The name of the label, if it is not the field. With ``hotkey``, only watched miners
            have values, or all exported ones if the table declares the field with the miner.
    """

    text: str
    function: Callable[[list[Any]], Any]
    _: KW_ONLY
    of: Value = lambda record: record
    by: Value = ""
    label: str = ""
    stability: Stability = "stable"

    complete = True

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels after that of the miner."""
        label = self.label or str(self.by)
        return (label,) if label else ()

    @property
    def fields(self) -> list[str]:
        """The fields of a record of which it is made."""
        return [value for value in (self.of, self.by) if value and isinstance(value, str)]

    def samples(self, records: list[Any], watched: list[str]) -> Iterable[Sample]:
        """Return the values of the records, with labels."""
        value = self._by_group(records, watched) if self.by else self._value(records)
        return _labelled(value, self.label or self.by)

    def _by_group(self, records: list[Any], watched: list[str]) -> dict[str, Any] | None:
        """Return the value of each group, None if the group of a record is unknown."""
        by_group: dict[str, list[Any]] = defaultdict(list)
        if self.label == "hotkey":
            by_group.update({hotkey: [] for hotkey in watched})
        for record in records:
            groups_of_record = _get(record, self.by)
            if groups_of_record is None:
                return None
            if not isinstance(groups_of_record, list):
                groups_of_record = [groups_of_record]
            for group in groups_of_record:
                by_group[group].append(record)
        return {group: self._value(members) for group, members in by_group.items()}

    def _value(self, records: list[Any]) -> Any:
        """Return what the function makes of records, None if a value in its list is unknown."""
        values = [_get(record, self.of) for record in records]
        if any(value is None for value in values):
            return None
        return self.function(values)


def _labelled(value: Any, label: object) -> list[Sample]:
    """Return the sample of a value, or with a label, those of a mapping from label values to
    values. A mapping that is unknown has none.
    """
    if not label:
        return [((), value)]
    return [((text,), one) for text, one in (value or {}).items()]


def fields_named(*names: str) -> dict[str, str]:
    """Return labels with the fields of the same names."""
    return {name: name for name in names}


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
        joined: Other feeds. While one of them is not complete, all metrics are absent.
        key: The fields that identify a record, separated by spaces. Of records with the same key,
            the first counts.
        label: The labels of the key, separated by spaces, if they have other names.
        records: Makes the list of records from the answers of all these feeds. Without it, the
            answer of the first is this list. If it makes None, all metrics are absent.
        miner: The field with the miner of a record, if the feed is about all miners. Only exported
            miners have samples.
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
        **metrics: Row | Total,
    ) -> None:
        super().__init__(feed, *joined)
        self.key = key.split()
        # Of a list of all chutes, only exported ones have samples.
        self.of_chutes = self.scope == "platform" and self.key == ["chute_id"]
        self._records = records
        self._miner = miner
        # A feed that is not about the platform has an answer for each miner. Its records may name
        # the miner themselves.
        self._miner_label = ("hotkey",) if feed.scope != "platform" and not miner else ()
        self.rows: dict[Metric, Row] = {}
        self._totals: dict[Metric, Total] = {}
        key_labels = (label or key).split()
        for name, declared in metrics.items():
            if isinstance(declared, Total):
                self._totals[self._declare(name, declared)] = declared
            else:
                self.rows[self._declare(name, declared, *key_labels)] = declared

    def _declare(self, name: str, declared: Row | Total, *key_labels: str) -> Metric:
        return self.metric(
            name,
            declared.text,
            (*self._miner_label, *key_labels, *declared.labels),
            fields=", ".join(dict.fromkeys(declared.fields)),
            # The answers of joined feeds are always complete, that of the first one if declared.
            complete=self.feeds if declared.complete else self.feeds[1:],
            stability=declared.stability,
        )

    def _key_of(self, record: R) -> tuple[Any, ...]:
        return tuple([getattr(record, field) for field in self.key])

    def add_samples(self, answers: Answers, miners: Miners, out: Samples) -> None:
        """Add the samples of exported records, of watched miners without one, and of totals."""
        records = self._records(*(answers[feed] for feed in self.feeds))
        if records is None:
            return
        if self.key:
            records = distinct(records, self._key_of)
        hotkey = (miners.hotkey,) if self._miner_label else ()
        for record in records:
            if self._is_exported(record, answers, miners):
                add_rows(self.rows, record, (*hotkey, *self._key_of(record)), out)
        self._add_missing(answers, records, sorted(miners.watched), out)
        self._add_totals(records, miners, hotkey, out)

    def _is_exported(self, record: Any, answers: Answers, miners: Miners) -> bool:
        """Return whether a record is about an exported chute and an exported miner."""
        chooses_chutes = self.of_chutes and miners.chutes == "relevant"
        if chooses_chutes and record.chute_id not in answers.joined.relevant_chutes:
            return False
        return not self._miner or miners.exports(getattr(record, self._miner))

    def _add_missing(
        self, answers: Answers, records: list[R], watched: list[str], out: Samples
    ) -> None:
        """Add the value ``missing`` of each watched miner without a record.

        The miner is the first field of the key. If the key has others, such as the window, a miner
        needs a record for each window that a record of any miner has.
        """
        # A record that may be missing can be that of any miner.
        if not answers.complete([self.feeds[0].name]):
            return
        listed_keys = dict.fromkeys(map(self._key_of, records))
        for other_fields in dict.fromkeys(key[1:] for key in listed_keys):
            for miner in watched:
                key = (miner, *other_fields)
                if key not in listed_keys:
                    for metric, row in self.rows.items():
                        out.add(metric, row.missing, *key)

    def _add_totals(
        self, records: list[R], miners: Miners, hotkey: tuple[str, ...], out: Samples
    ) -> None:
        """Add the totals of all records.

        A total by miner is added for the exported miners if the table declares the field with the
        miner, and otherwise only for the watched ones. ``hotkey`` is the label of the miner that
        the feed is about, and empty for a feed about the platform.
        """
        watched = sorted(miners.watched)
        is_exported = miners.exports if self._miner else miners.watched.__contains__
        for metric, total in self._totals.items():
            for labels, value in total.samples(records, watched):
                if total.label == "hotkey" and not is_exported(str(labels[0])):
                    continue
                out.add(metric, value, *hotkey, *labels)


def _get(record: Any, value: Value | Mapping[str, Value]) -> Any:
    """Return a declared value of a record, None if a field on its path is null or was not sent. Of
    a mapping from label values to values, return each.
    """
    if isinstance(value, Mapping):
        return {label: _get(record, one) for label, one in value.items()}
    if not isinstance(value, str):
        return value(record)
    for name in value.split("."):
        record = getattr(record, name)
        if record is None or record is UNSET:
            return None
    return record
