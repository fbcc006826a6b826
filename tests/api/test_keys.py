from __future__ import annotations

import json
import pickle
from hashlib import blake2b
from pathlib import Path

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        HOTKEY + " ",
        HOTKEY + "\n",
        "1" * 48,  # a checksum of nothing but zeros
        "0x" + "00" * 32,
        "http://127.0.0.1",
        "5\N{SNOWMAN}",
    ],
)
def test_an_invalid_bittensor_address_is_refused(address: str) -> None:
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


# Alice and Bob are Substrate's development keys, which its documentation lists.
ALICE_SEED = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a"
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
KNOWN = {
    ALICE: "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
    BOB: "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48",
}
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KEYS = st.binary(min_size=32, max_size=32)


def encoded(payload: bytes) -> str:
    """Return the SS58 address of a payload on Bittensor."""
    body = b"\x2a" + payload
    return base58.b58encode(body + blake2b(b"SS58PRE" + body).digest()[:2]).decode()


@pytest.mark.parametrize("address", KNOWN)
def test_known_keys_have_their_known_addresses(address: str) -> None:
    assert public_key(address).hex() == KNOWN[address]
    assert address_of(bytes.fromhex(KNOWN[address])) == address


def test_a_known_seed_has_its_known_address() -> None:
    assert Hotkey.from_seed(ALICE_SEED).address == ALICE


def test_a_text_of_a_megabyte_is_refused_without_decoding_it() -> None:
    with pytest.raises(HotkeyError, match="is not an SS58 address"):
        public_key("5" * 1_000_000)


@given(KEYS)
def test_an_address_survives_the_way_to_its_key_and_back(key: bytes) -> None:
    assert public_key(address_of(key)) == key
    assert address_of(key) == encoded(key)


@pytest.mark.parametrize("address", [ALICE, BOB, HOTKEY])
def test_an_address_with_any_one_character_changed_is_refused(address: str) -> None:
    for place, right in enumerate(address):
        for wrong in ALPHABET.replace(right, "") + "0OIl +/é":
            with pytest.raises(HotkeyError):
                public_key(address[:place] + wrong + address[place + 1 :])


@pytest.mark.parametrize(
    "address",
    [
        "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5",  # Alice on Polkadot
        "HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F",  # Alice on Kusama
    ],
)
def test_an_address_of_another_network_is_refused(address: str) -> None:
    with pytest.raises(HotkeyError, match="belongs to another network"):
        public_key(address)


@given(st.binary(min_size=29, max_size=35).filter(lambda payload: len(payload) != 32))
def test_a_key_of_another_length_is_refused(payload: bytes) -> None:
    with pytest.raises(HotkeyError, match="is not the address of a 32-byte key"):
        public_key(encoded(payload))


@given(st.text(max_size=60) | st.text(alphabet=ALPHABET, max_size=60))
def test_any_invalid_text_raises_a_hotkey_error(text: str) -> None:
    try:
        key = public_key(text)
    except HotkeyError:
        return
    assert address_of(key) == text


def test_a_hotkey_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "default", ss58Address=HOTKEY, secretSeed=TEST_SEED, accountId="0x00", secretPhrase="a b")
    key = Hotkey.from_file(path)
    assert (key.address, key.source) == (HOTKEY, str(path))
    # As some editors write it.
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert path.read_bytes()[:3] == b"\xef\xbb\xbf"
    assert Hotkey.from_file(path).address == HOTKEY


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
