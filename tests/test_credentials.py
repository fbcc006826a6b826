"""Keys of wallets and of the miners' Secret: every kind of file and variable, right and wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from bittensor_core import (
    CRYPTO_ED25519,
    CRYPTO_SR25519,
    Keypair,
    serialized_keypair_to_keyfile_data,
    verify,
)

from chutes_exporter.config import Credentials, find_credentials
from tests.support import HOTKEY, TEST_SEED

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"
# Substrate's development phrase, which its documentation lists, with its address.
PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"
PHRASE_ADDRESS = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV"


def written(crypto_type: int = CRYPTO_SR25519) -> dict[str, Any]:
    """Return the fields of the file that today's wallet writes for a key of the test seed."""
    pair = Keypair.from_seed(bytes.fromhex(TEST_SEED[2:]), crypto_type)
    fields: dict[str, Any] = json.loads(serialized_keypair_to_keyfile_data(pair))
    return fields


WALLET = written()
PRIVATE_KEY: str = WALLET["privateKey"]
PUBLIC = {name: WALLET[name] for name in ("accountId", "publicKey", "ss58Address", "cryptoType")}
SUMMER = PUBLIC | {"privateKey": PRIVATE_KEY}
"""What the wallets of summer 2026 wrote."""
NEWER = {"publicKey": "0x" + "ab" * 1952, "ss58Address": HOTKEY}
"""The start of a file with a key of a type that Bittensor announces, with a longer public key."""
OLD = {"ss58Address": HOTKEY, "secretSeed": TEST_SEED}


@pytest.mark.parametrize(
    ("file", "address"),
    [
        (WALLET, HOTKEY),
        (SUMMER, HOTKEY),
        ({"ss58Address": HOTKEY, "privateKey": PRIVATE_KEY[2:]}, HOTKEY),
        (OLD, HOTKEY),
        ({"ss58Address": PHRASE_ADDRESS, "secretPhrase": PHRASE}, PHRASE_ADDRESS),
        # The library takes the address as the truth about the type.
        (WALLET | {"cryptoType": 0}, HOTKEY),
    ],
    ids=range(6),
)
def test_a_key_file_of_every_wallet_signs(
    file: dict[str, Any], address: str, tmp_path: Path
) -> None:
    path = tmp_path / "hot"
    path.write_text(json.dumps(file))
    path.chmod(0o600)
    found = find_credentials([path], {})
    assert_signs(found, address)


@pytest.mark.parametrize(
    "variables",
    [
        {"MINER_SEED": TEST_SEED},
        {"MINER_SEED": f" {TEST_SEED[2:].upper()}\n", "MINER_PRIVATE_KEY": ""},
        {"MINER_PRIVATE_KEY": PRIVATE_KEY},
        {"MINER_PRIVATE_KEY": f"{PRIVATE_KEY[2:]}\n"},
    ],
    ids=range(4),
)
def test_the_variables_of_the_miners_secret_sign(variables: dict[str, str]) -> None:
    found = find_credentials([], variables | {"MINER_SS58": f"{HOTKEY}\n"})
    assert_signs(found, HOTKEY)


def assert_signs(found: Credentials, address: str) -> None:
    """Assert that one key was found, without a complaint, and that it signs for an address."""
    (key,) = found.keys
    assert (key.address, found.errors, found.warnings) == (address, (), ())
    signature = key.headers(1_795_521_600)["X-Chutes-Signature"]
    message = f"{address}:1795521600:miner".encode()
    assert verify(message, bytes.fromhex(signature), address)


NO_KEY = "has no key that belongs to its ss58Address: use the file of a hotkey as the wallet wrote"
WRONG = (
    (written(CRYPTO_ED25519), "has a key of another type: Chutes accepts only those of the type"),
    (NEWER | {"cryptoType": "ml-dsa-65"}, NO_KEY),
    (b"$NACL\x0e6", "is encrypted"),
    (PUBLIC, NO_KEY),
    (SUMMER | {"ss58Address": OTHER}, NO_KEY),
    (OLD | {"secretPhrase": PHRASE}, NO_KEY),
    (OLD | {"secretSeed": 5}, NO_KEY),
    ({"ss58Address": PHRASE_ADDRESS, "secretPhrase": PHRASE[7:]}, NO_KEY),
    (f"not JSON, but {TEST_SEED} {PHRASE}".encode(), NO_KEY),
    (b'{"a":' * 100_000, NO_KEY),
)


@pytest.mark.parametrize(("file", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_key_file_is_refused_with_the_reason(
    file: dict[str, Any] | bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "hot"
    path.write_bytes(file if isinstance(file, bytes) else json.dumps(file).encode())
    found = find_credentials([path], {})
    (error,) = found.errors
    assert error.startswith(f"--hotkey-file: {path} ")
    assert words in error
    assert found.keys == ()
    # Not even a part of a secret is shown.
    for secret in (TEST_SEED, PRIVATE_KEY, PHRASE):
        assert secret[2:22] not in error
