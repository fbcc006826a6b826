from __future__ import annotations

import hashlib

import pytest
import xxhash

from chutes_exporter.chain import storage

NETUID = (64).to_bytes(2, "little")
OTHERS = {
    "SubtensorModule.Keys": storage.HOTKEY,
    "SubtensorModule.BlockAtRegistration": storage.REGISTERED,
    "SubtensorModule.Owner": storage.COLDKEY,
    "SubtensorModule.OwnedHotkeys": storage.OWNED_HOTKEYS,
}
ARGUMENTS = {
    "System.Number": b"",
    "Timestamp.Now": b"",
    "SubtensorModule.Owner": b"",
    "SubtensorModule.OwnedHotkeys": b"",
    "SubtensorModule.MechanismCountCurrent": xxhash.xxh64(NETUID).digest()[::-1] + NETUID,
}


def twox128(text: str) -> bytes:
    return b"".join(xxhash.xxh64(text.encode(), seed=seed).digest()[::-1] for seed in (0, 1))


@pytest.mark.parametrize("item", [*storage.SUBNET_ITEMS.values(), *OTHERS.values()], ids=lambda item: item.name)
def test_a_key_is_made_of_the_hashes_of_the_names(item: storage.Item) -> None:
    pallet, name = item.name.split(".")
    assert item.key == "0x" + (twox128(pallet) + twox128(name) + ARGUMENTS.get(item.name, NETUID)).hex()


def test_the_others_have_their_names_and_arguments() -> None:
    assert {item.name: item for item in OTHERS.values()} == OTHERS
    assert storage.HOTKEY.of_uid(258).key == storage.HOTKEY.key + "0201"
    account = bytes.fromhex("ab") * 32
    hashed = hashlib.blake2b(account, digest_size=16).digest() + account
    assert storage.COLDKEY.of_account(account).key == storage.COLDKEY.key + hashed.hex()


@pytest.mark.parametrize("count", [0, 63, 64, 16383, 16384])
def test_a_list_of_any_length_is_read(count: int) -> None:
    # The two lowest bits of the length tell how many bytes it has.
    size, kind = (1, 0) if count < 64 else (2, 1) if count < 16384 else (4, 2)
    text = "0x" + (count << 2 | kind).to_bytes(size, "little").hex() + "0100" * count
    assert storage.SUBNET_ITEMS["incentive"].value(text) == [1] * count
