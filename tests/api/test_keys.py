from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.keys import (
    Hotkey,
    HotkeyError,
    parse_address,
)
from tests.support import HOTKEY, TEST_SEED

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, **content: object) -> Path:
    """Write a hotkey file with some fields, which only its owner can read."""
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "address",
    [
        "",
        "x",
        HOTKEY[:-1],
        HOTKEY[:-1] + "j",
        f'"{HOTKEY}"',
        "1" * 48,  # a checksum of nothing but zeros
        "5" * 1_000_000,  # decoding takes quadratic time
        "5\N{SNOWMAN}",
        "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5",  # Alice on Polkadot
        "HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F",  # Alice on Kusama
    ],
    ids=range(10),
)
def test_an_invalid_bittensor_address_is_refused(address: str) -> None:
    with pytest.raises(HotkeyError, match="is not an SS58 address of Bittensor"):
        parse_address(address)


def test_a_cold_key_is_refused_by_its_name_also_behind_a_link(tmp_path: Path) -> None:
    cold = write(tmp_path / "coldkey", ss58Address=HOTKEY, secretSeed=TEST_SEED)
    (tmp_path / "hot").symlink_to(cold)
    for path in (cold, tmp_path / "hot", write(tmp_path / "coldkeypub.txt", ss58Address=HOTKEY)):
        with pytest.raises(HotkeyError, match="cold key"):
            Hotkey.from_file(path)
