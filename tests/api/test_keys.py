from __future__ import annotations

import json
from pathlib import Path

import pytest

from chutes_exporter.api.keys import (
    Hotkey,
    HotkeyError,
    public_key,
    readable_by_others,
)
from tests.support import HOTKEY, TEST_SEED


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
        HOTKEY + "\n",
        f'"{HOTKEY}"',
        "1" * 48,  # a checksum of nothing but zeros
        "5" * 1_000_000,  # decoding takes quadratic time
        "5\N{SNOWMAN}",
        "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5",  # Alice on Polkadot
        "HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F",  # Alice on Kusama
    ],
    ids=range(11),
)
def test_an_invalid_bittensor_address_is_refused(address: str) -> None:
    with pytest.raises(HotkeyError, match="is not an SS58 address of Bittensor"):
        public_key(address)


# The start of the seed, without "0x". It must not be shown, either.
SEED_START = TEST_SEED[2:20]


@pytest.mark.parametrize(
    "secret", [TEST_SEED, TEST_SEED[2:], f" {TEST_SEED}\n", "twelve words of a phrase"]
)
def test_a_secret_in_the_place_of_an_address_is_not_shown(secret: str) -> None:
    with pytest.raises(HotkeyError) as refusal:
        public_key(secret)
    assert secret.strip() not in str(refusal.value)
    assert SEED_START not in str(refusal.value)


def test_a_seed_in_the_place_of_a_path_is_not_shown() -> None:
    with pytest.raises(HotkeyError) as refusal:
        Hotkey.from_file(Path(TEST_SEED))
    assert SEED_START not in str(refusal.value)


def test_a_cold_key_is_refused_by_its_name_also_behind_a_link(tmp_path: Path) -> None:
    cold = write(tmp_path / "coldkey", ss58Address=HOTKEY, secretSeed=TEST_SEED)
    (tmp_path / "hot").symlink_to(cold)
    for path in (cold, tmp_path / "hot", write(tmp_path / "coldkeypub.txt", ss58Address=HOTKEY)):
        with pytest.raises(HotkeyError, match="cold key"):
            Hotkey.from_file(path)


def test_a_missing_file_is_refused() -> None:
    for path in ("~nosuchuser/hot", "/nowhere/hot"):
        with pytest.raises(HotkeyError, match="cannot read the hotkey file"):
            Hotkey.from_file(Path(path))


@pytest.mark.parametrize(("mode", "readable"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_noticed(
    tmp_path: Path, mode: int, *, readable: bool
) -> None:
    path = write(tmp_path / "hot")
    path.chmod(mode)
    assert readable_by_others(path) == readable
