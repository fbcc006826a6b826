from __future__ import annotations

import math
from typing import Any

import pytest

from chutes_exporter.web.go_yaml import (
    NodeError,
    Schema,
    Section,
    boolean,
    decode,
    first_document,
    integer,
    nanoseconds,
    texts,
)
from chutes_exporter.web.go_yaml import text as as_text

SCHEMA: Schema = {
    "text": as_text,
    "texts": texts,
    "flag": boolean,
    "number": integer,
    "time": nanoseconds,
    "map": None,
    "inner": {"a": as_text, "flag": boolean, "map": None},
}


def plain(found: Any) -> Any:
    if isinstance(found, Section):
        return {name: plain(value) for name, value in found.items()}
    return [item.value for item in found.value] if isinstance(found.value, list) else found.value


def read(text: str) -> Any:
    node = first_document(text.encode())
    assert node is not None
    return plain(decode(node, SCHEMA, "the document"))


@pytest.mark.parametrize(
    ("written", "meaning"),
    [
        *(("", None), ("~", None), ("NULL", None), ("1", 1), ("+1", 1), ("-1", -1), ("0", 0), ("010", 8), ("08", 8)),
        *(("0o17", 15), ("0x1F", 31), ("-0X1f", -31), ("0b101", 5), ("1_000", 1000), ("1.9", 1), ("-1.9", -1)),
        *(("1e3", 1000), (".5e1", 5), ("2.", 2), ("!!float 3", 3), ("!!int '7'", 7), ("!!null ''", None)),
        *(("-.inf", -(2**63 - 1)), ("-1e300", -(2**63 - 1)), (str(2**63 - 1), 2**63 - 1)),
    ],
)
def test_numbers_are_read_as_go_reads_them(written: str, meaning: int | None) -> None:
    assert read(f"number: {written}") == {"number": meaning}


@pytest.mark.parametrize(
    "written",
    [
        *(
            "'1'",
            "x",
            "true",
            ".nan",
            ".inf",
            str(2**63),
            str(2**64),
            "9" * 100,
            "9" * 5000,
            "1e400",
            "0x",
            ".1_0",
            "! 1",
        ),
        *("[1]", "{}", "!!str 1", "!!int x", "!!bool 1", "!!null x", "!x 1", "!!binary MQ==", "!!timestamp 2001-01-01"),
    ],
)
def test_a_number_that_go_refuses_is_refused(written: str) -> None:
    with pytest.raises(NodeError, match=r"number (must be a number|does not fit its tag|cannot have the tag)"):
        read(f"number: {written}")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        *(("1s", 1), ("1m1.5s", 61.5), ("2h", 7200), ("100ms", 0.1), ("2us", 2e-6), ("2µs", 2e-6), ("2μs", 2e-6)),
        *((".5s", 0.5), ("1.s", 1), ("-1m", -60), ("+1m", 60), ("'0'", 0), ("5", 5e-9), ("1e9", 1), ("0.5ns", 0)),
    ],
)
def test_durations_are_read_as_go_reads_them(written: str, seconds: float) -> None:
    found = read(f"time: {written}")["time"]
    assert isinstance(found, int)
    assert math.isclose(found / 1e9, seconds)


@pytest.mark.parametrize("written", ["'5'", "1d", "s", ".s", "1 s", "1:30", "9223372037s", "true", "[1s]", "1s-1s"])
def test_a_duration_that_go_refuses_is_refused(written: str) -> None:
    with pytest.raises(NodeError, match="time"):
        read(f"time: {written}")


@pytest.mark.parametrize("written", ["y", "Y", "yes", "true", "TRUE", "on"])
def test_words_for_true_are_those_of_yaml_1_1(written: str) -> None:
    assert read(f"flag: {written}") == {"flag": True}
    with pytest.raises(NodeError, match="flag must be true or false"):
        read(f"flag: '{written}'")
    assert read(f"text: {written}") == {"text": written}


@pytest.mark.parametrize(("written", "meaning"), [("n", False), ("Off", False), ("~", None)])
def test_words_for_false_are_those_of_yaml_1_1(written: str, meaning: bool | None) -> None:  # noqa: FBT001
    assert read(f"flag: {written}") == {"flag": meaning}


@pytest.mark.parametrize("written", ["[a]", "tRUE", "1"])
def test_other_words_are_no_booleans(written: str) -> None:
    with pytest.raises(NodeError, match="flag must be true or false"):
        read(f"flag: {written}")


def test_only_the_first_document_is_read() -> None:
    assert read("text: a\n---\ntext: [b") == {"text": "a"}
    assert first_document(b"# nothing") is None


def test_a_later_anchor_replaces_an_earlier_one() -> None:
    assert read("text: &a 1\ntexts: [&a 2, *a]") == {"text": "1", "texts": ["2", "2"]}


def test_null_sets_all_fields_of_a_struct_to_null() -> None:
    assert read("inner:") == {"inner": {"a": None, "flag": None}}
    assert read("~") == dict.fromkeys(("text", "texts", "flag", "number", "time"))


def test_the_last_value_of_a_field_counts_where_a_mapping_is_merged() -> None:
    assert read("<<: {text: a, flag: y}\ntext: b") == {"text": "b", "flag": True}
    assert read("text: b\n<<: {text: a}") == {"text": "a"}
    # In a list, the first mapping counts.
    assert read("<<: [{text: a}, {text: b}]") == {"text": "a"}
    assert read("<<: {inner: {a: x}}\ninner: {flag: n}") == {"inner": {"a": "x", "flag": False}}
    assert read("!!merge <<: {text: a}") == {"text": "a"}


def test_entries_of_a_map_are_merged_and_null_empties_it() -> None:
    assert read("map: {<<: {a: 1}, b: ~}") == {"map": {"a": "1", "b": ""}}
    assert read("<<: {map: {a: 1}}\nmap: {b: 2}") == {"map": {"a": "1", "b": "2"}}
    assert read("<<: {map: {a: 1}}\nmap: ~") == {"map": {}}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("text: a\ntext: b", "'text' is set twice in the document"),
        ("map: {a: 1, a: 2}", "'a' is set twice in map"),
        ("map: {<<: {a: 1}, a: 2}", "'a' is set twice in map"),
        ("map: []", "map must be a mapping"),
        ("inner: x", "inner must be a mapping"),
        ("texts: x", "texts must be a list"),
        ("texts: [[x]]", "an item of texts must be a text"),
        ("'<<': {}", "'<<' is unknown in the document"),
        ("<<: x", "a merge key needs a mapping or a list of mappings"),
        ("texts: &a []\n<<: *a", "a merge key needs a mapping or a list of mappings"),
        ("&a {<<: *a}", "the document contains itself"),
        ('text: "\\ud800"', "text has a character that does not exist"),
    ],
)
def test_a_mapping_that_go_refuses_is_refused(written: str, reason: str) -> None:
    with pytest.raises(NodeError, match=reason):
        read(written)


def test_aliases_of_aliases_end() -> None:
    levels = [f"&a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 20)}]}}" for level in range(1, 10)]
    assert read(f"<<: [&a0 {{text: a}}, {levels[0]}, {levels[1]}]") == {"text": "a"}
    with pytest.raises(NodeError, match="repeats its aliases too often"):
        read(f"<<: [&a0 {{text: a}}, {', '.join(levels)}]")
