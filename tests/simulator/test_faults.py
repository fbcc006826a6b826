from __future__ import annotations

import pytest

from chutes_exporter.simulator import Fault, parse_fault
from chutes_exporter.simulator.faults import GARBAGE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("scores=status:503", Fault(status=503)),
        ("scores=latency:0.5", Fault(latency=0.5)),
        ("scores=cut:10", Fault(cut_after=10)),
        ("scores=empty", Fault(body=b"")),
        ("scores=garbage", Fault(body=GARBAGE)),
        ("chutes=records:25", Fault(records=25)),
        ("maintenance=status:404", Fault(status=404)),
    ],
)
def test_faults_can_be_written_on_the_command_line(text: str, fault: Fault) -> None:
    assert parse_fault(text) == (text.partition("=")[0], fault)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scores",
        "scores=",
        "scores=status:x",
        "scores=status:99",
        "scores=latency:-1",
        "scores=cut:-1",
        "scores=explode",
        "scores=records:25",
        "chutes=records:-1",
        "chutes=zero",
        "nothing=status:500",
    ],
)
def test_an_invalid_fault_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="for example scores=status:503"):
        parse_fault(text)
