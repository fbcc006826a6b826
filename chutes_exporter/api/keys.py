"""Hotkeys: addresses, hotkey files and signatures. Nothing shows or returns a secret."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from bittensor_core import (
    CRYPTO_SR25519,
    KeyfileError,
    Keypair,
    decode_ss58,
    deserialize_keypair_from_keyfile_data,
    encode_ss58,
    keyfile_data_is_encrypted,
)

from chutes_exporter.api.errors import scrub
from chutes_exporter.files import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

Purpose = Literal["miner", "tee"]
"""The word at the end of a signed message.

The service accepts a signature only where it expects its word.
"""

_ADDRESS_LENGTH = 48
_COLD_NAMES = frozenset({"coldkey", "coldkeypub", "coldkeypub.txt"})


class HotkeyError(ValueError):
    """A hotkey cannot be used. The message says why and never contains key material."""


def parse_address(text: str) -> str:
    """Return the SS58 address of a hotkey in a text, or raise HotkeyError."""
    address = text.strip()
    has_right_length = len(address) == _ADDRESS_LENGTH
    # The library takes minutes for a text of a million characters.
    if has_right_length:
        # It accepts the addresses of other networks, too, but writes only Bittensor's.
        with suppress(ValueError):
            if encode_ss58(decode_ss58(address)) == address:
                return address
    # Any text that does not look like an address may be a secret in the wrong place.
    shown = f"the value (not shown, {len(address)} characters)"
    if has_right_length and address.isalnum():
        shown = repr(address)
    raise HotkeyError(
        f"{shown} is not an SS58 address of Bittensor: copy it again, 48 characters without quotes"
    )


class Hotkey:
    """A key pair that signs requests, and its SS58 address."""

    def __init__(self, pair: Keypair) -> None:
        self._pair = pair
        self.address = pair.ss58_address

    def __repr__(self) -> str:
        return f"Hotkey({self.address})"

    @classmethod
    def from_seed(cls, secret: str, *, address: str | None = None, source: str = "seed") -> Self:
        """Make the key of a secret seed or a private key.

        Args:
            secret: The 64 hexadecimal digits of a seed, or 128 of a private key, with or without
                ``0x``.
            address: The SS58 address that the key must belong to. None skips this check. Empty
                means that the user forgot it, which is an error.
            source: Origin of the secret, for messages.

        Raises:
            HotkeyError: The secret is malformed or belongs to another address.
        """
        digits = secret.strip()
        if not re.fullmatch(r"(0x)?([0-9a-fA-F]{64}){1,2}", digits):
            raise HotkeyError(
                f"{source}: a seed has 64 hexadecimal digits and a private key 128, with or "
                "without 0x, without quotes"
            )
        try:
            # The library tells a seed from a private key by its length.
            key = cls(Keypair.create_from_private_key(digits))
        except ValueError:
            raise HotkeyError(
                f"{source}: these digits are no key of the type sr25519: copy them again"
            ) from None
        if address == "":
            raise HotkeyError(f"{source}: the address is missing: the key is that of {key.address}")
        if address not in (None, key.address):
            # Do not show the address: it may be a secret in the wrong place.
            raise HotkeyError(
                f"{source}: the key does not belong to the given address, but to {key.address}: "
                "use the key and the address of one hotkey"
            )
        return key

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a Bittensor hotkey file (``~/.bittensor/wallets/<wallet>/hotkeys/<name>``).

        Raises:
            HotkeyError: The file cannot be read, is a cold key, is encrypted, or has no sr25519 key
                of its address.
        """
        # A seed in the place of a path must not be shown.
        source = scrub(str(path))
        try:
            path = path.expanduser()
            # A cold key is not read at all. A link to one may have another name.
            if {path.name, path.resolve().name} & _COLD_NAMES:
                raise HotkeyError(
                    f"{source} is a cold key, which the exporter never needs: use the file of "
                    "the hotkey"
                )
            content = read_file(path)
        except (OSError, RuntimeError) as error:
            # RuntimeError: the home directory of an unknown user.
            reason = getattr(error, "strerror", error)
            advice = "Check the path and its permissions"
            with suppress(HotkeyError):
                parse_address(path.name)
                advice = "For an address, use --hotkey"
            raise HotkeyError(f"cannot read the hotkey file {source}: {reason}. {advice}") from None
        if keyfile_data_is_encrypted(content):
            raise HotkeyError(f"{source} is encrypted: use a hotkey file without a password")
        try:
            pair = deserialize_keypair_from_keyfile_data(content)
            # The library accepts a file with only public parts. Its key cannot sign.
            pair.sign(b"")
        except (KeyfileError, ValueError):
            # Omit the library's message: it may quote the file.
            pair = None
        # The file must also have the address of the pair. Otherwise, half a private key would pass
        # for the seed of another key.
        if pair is None or pair.ss58_address.encode() not in content:
            raise HotkeyError(
                f"{source} has no key that belongs to its ss58Address: use the file of a "
                "hotkey as the wallet wrote it"
            )
        if pair.crypto_type != CRYPTO_SR25519:
            raise HotkeyError(
                f"{source} has a key of another type: Chutes accepts only those of the type sr25519"
            )
        return cls(pair)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], *, is_only_source: bool
    ) -> Self | None:
        """Return the environment's key, None if it has none, or raise HotkeyError.

        If it is the only source of keys, an address without a secret is an error, and so is an
        empty secret. The user expects private data, and would get none.
        """
        # An empty address is an error of from_seed, because the user forgot it.
        address = environment.get("MINER_SS58", "").strip()
        # If both are set, the first one must belong to the address, too.
        for name in ("MINER_SEED", "MINER_PRIVATE_KEY"):
            secret = environment.get(name, "")
            if secret.strip():
                return cls.from_seed(secret, address=address, source=f"{name} and MINER_SS58")
        names = {"MINER_SS58", "MINER_SEED", "MINER_PRIVATE_KEY"}
        if is_only_source and environment.keys() & names:
            raise HotkeyError(
                "MINER_SS58 needs a key: set MINER_SEED or MINER_PRIVATE_KEY, which the miners' "
                "Secret has as seed or privateKey. "
                "For public data only, unset MINER_SS58 and set CHUTES_EXPORTER_HOTKEY"
            )
        return None

    def headers(self, nonce: int, purpose: Purpose = "miner") -> dict[str, str]:
        """Return the headers that sign a request.

        The nonce is the Unix time in seconds. The service refuses one that differs from its own
        time by 600 s or more.
        """
        message = f"{self.address}:{nonce}:{purpose}".encode()
        return {
            "X-Chutes-Hotkey": self.address,
            "X-Chutes-Nonce": str(nonce),
            "X-Chutes-Signature": self._pair.sign(message).hex(),
        }


def readable_by_others(path: Path) -> bool:
    """Return whether users other than the owner may read a file."""
    return bool(path.stat().st_mode & 0o044)
