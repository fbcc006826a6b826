from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from chutes_exporter.api.keys import (
    Hotkey,
    HotkeyError,
    address_of,
    public_key,
    readable_by_others,
    verify_headers,
)
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY, KEY

OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


def write(path: Path, **content: object) -> Path:
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return path


def test_the_test_seed_is_the_test_address() -> None:
    assert Hotkey.from_seed(TEST_SEED).address == HOTKEY
    assert Hotkey.from_seed(TEST_SEED.removeprefix("0x").upper(), address=HOTKEY).address == HOTKEY


@pytest.mark.parametrize("seed", ["", "0x12", TEST_SEED + "0", "z" * 64, "word " * 12])
def test_a_seed_of_another_form_is_refused_without_being_shown(seed: str) -> None:
    with pytest.raises(HotkeyError, match="not 64 hexadecimal digits") as refusal:
        Hotkey.from_seed(seed)
    assert not seed or seed not in str(refusal.value)


def test_a_seed_of_another_address_is_refused() -> None:
    with pytest.raises(HotkeyError, match=f"does not belong to {OTHER}, but to {HOTKEY}") as refusal:
        Hotkey.from_seed(TEST_SEED, address=OTHER)
    assert TEST_SEED[2:] not in str(refusal.value)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "x",
        HOTKEY[:-1],
        HOTKEY[:-1] + "j",
        HOTKEY + "1",
        "0x" + "00" * 32,
        "http://127.0.0.1",
        "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5",  # Polkadot's prefix
        "5\N{SNOWMAN}",
    ],
)
def test_what_is_no_bittensor_address_is_refused(address: str) -> None:
    with pytest.raises(HotkeyError):
        public_key(address)


@pytest.mark.parametrize("seed", [TEST_SEED, TEST_SEED[2:], f" {TEST_SEED}\n", "twelve words of a phrase"])
def test_a_secret_in_the_place_of_an_address_or_a_path_is_not_shown(seed: str, tmp_path: Path) -> None:
    for attempt in (
        lambda: public_key(seed),
        lambda: Hotkey.from_seed(TEST_SEED, address=seed),
        lambda: Hotkey.from_file(write(tmp_path / "hot", ss58Address=seed, secretSeed=TEST_SEED)),
        lambda: Hotkey.from_file(Path(TEST_SEED)),
    ):
        with pytest.raises(HotkeyError) as refusal:
            attempt()
        assert seed.strip() not in str(refusal.value)
        assert TEST_SEED[2:20] not in str(refusal.value)


@pytest.mark.parametrize("path", ["~nosuchuser/hot", "loop"])
def test_paths_that_lead_nowhere_are_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(HotkeyError, match="cannot read"):
        Hotkey.from_file(tmp_path / path if path == "loop" else Path(path))


def test_an_address_survives_the_way_to_its_key_and_back() -> None:
    assert address_of(public_key(HOTKEY)) == HOTKEY


def test_a_hotkey_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "default", ss58Address=HOTKEY, secretSeed=TEST_SEED, accountId="0x00", secretPhrase="a b")
    key = Hotkey.from_file(path)
    assert (key.address, key.source) == (HOTKEY, str(path))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("coldkey", json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}), "cold key"),
        ("coldkeypub.txt", json.dumps({"ss58Address": HOTKEY}), "cold key"),
        ("hot", "$NACL\x00\x01", "encrypted"),
        ("hot", f"not JSON, but {TEST_SEED}", "not a hotkey file"),
        ("hot", "[" * 100_000, "not a hotkey file"),
        ("hot", json.dumps({"ss58Address": HOTKEY}), "no secretSeed"),
        ("hot", json.dumps({"secretSeed": TEST_SEED}), "no ss58Address"),
        ("hot", json.dumps({"ss58Address": OTHER, "secretSeed": TEST_SEED}), "does not belong"),
        ("hot", json.dumps({"ss58Address": "x", "secretSeed": TEST_SEED}), "not an SS58 address"),
    ],
)
def test_a_file_that_holds_no_usable_hotkey_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(HotkeyError, match=reason) as refusal:
        Hotkey.from_file(path)
    assert TEST_SEED[2:] not in str(refusal.value)


def test_a_cold_key_under_another_name_is_found_out_through_its_link(tmp_path: Path) -> None:
    write(tmp_path / "coldkey", ss58Address=HOTKEY, secretSeed=TEST_SEED)
    (tmp_path / "hot").symlink_to(tmp_path / "coldkey")
    with pytest.raises(HotkeyError, match="cold key"):
        Hotkey.from_file(tmp_path / "hot")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HotkeyError, match="No such file"):
        Hotkey.from_file(tmp_path / "hot")


def test_a_file_that_others_can_read_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "hot")
    assert not readable_by_others(path)
    path.chmod(0o640)
    assert readable_by_others(path)
    path.chmod(0o604)
    assert readable_by_others(path)


def test_a_signature_verifies_for_its_own_message_alone() -> None:
    headers = KEY.headers(1_795_521_600)
    nonce, signature = headers["X-Chutes-Nonce"], headers["X-Chutes-Signature"]
    assert verify_headers(HOTKEY, nonce, signature)
    assert not verify_headers(HOTKEY, "1795521601", signature)
    assert not verify_headers(OTHER, nonce, signature)
    assert not verify_headers(HOTKEY, nonce, "00" * 64)
    assert not verify_headers(HOTKEY, nonce, "no hex")
    assert not verify_headers("no address", nonce, signature)


def test_a_key_shows_nothing_but_its_address() -> None:
    assert repr(KEY) == f"Hotkey({HOTKEY})"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(KEY)
