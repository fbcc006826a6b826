from __future__ import annotations

import pytest

from chutes_exporter.rules.maintenance import (
    version_accepted,
)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        ("1.10.0", True),
        # The service may refuse a lower one that is listed.
        ("1.9.0", None),
        ("1.8.0", False),
        # Release candidates are never listed, and boot for some miners.
        ("1.11.0-rc1", None),
        ("1.8.0-RC1", None),
        ("newest", False),
    ],
)
def test_only_the_highest_listed_version_boots_for_certain(
    version: str, *, accepted: bool | None
) -> None:
    assert version_accepted(version, {"1.9.0", "1.10.0"}) == accepted


def test_no_version_is_the_highest_if_one_has_another_form() -> None:
    assert version_accepted("1.10.0", {"1.10.0", "newest"}) is None
