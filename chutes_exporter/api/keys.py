"""Hotkeys: addresses, hotkey files and signatures. Nothing shows or returns a seed."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import msgspec
import sr25519

from chutes_exporter.api.errors import scrub

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

SS58_PREFIX = 42
"""The network number of Bittensor addresses, which is the generic one of Substrate."""

Purpose = Literal["miner", "tee"]
"""The word at the end of a signed message. The service accepts a signature only where it expects its word."""

_DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""The digits of base 58."""
_SEED = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")
_ADDRESS_SHAPE = re.compile(f"[{_DIGITS}]{{48}}")
_COLD_NAMES = frozenset({"coldkey", "coldkeypub", "coldkeypub.txt"})


class HotkeyError(ValueError):
    """A hotkey cannot be used. The message says why and never contains key material."""


def public_key(address: str) -> bytes:
    """Return the 32 bytes of the public key of an SS58 address.

    Raises:
        HotkeyError: The text is not such an address.
    """
    looks_right = _ADDRESS_SHAPE.fullmatch(address)
    number = 0
    for digit in address if looks_right else "":
        number = number * 58 + _DIGITS.index(digit)
    # 48 digits of base 58 fit into 36 bytes. Those of an address are 0, the prefix, the key, and 2 of the checksum.
    public = number.to_bytes(36, "big")[2:-2]
    if number != _number(public):
        # Do not show a secret in the wrong place.
        shown = repr(address) if looks_right else f"the value (not shown, {len(address)} characters)"
        # Every address of this network with 48 characters starts with 5.
        advice = "probably one character is wrong" if looks_right and address[0] == "5" else "use one of 48 characters"
        raise HotkeyError(f"{shown} is not an SS58 address of Bittensor: {advice}. Copy it again, without quotes")
    return public


def address_of(public: bytes) -> str:
    """Return the SS58 address of a 32-byte public key on Bittensor."""
    number, address = _number(public), ""
    while number:
        number, digit = divmod(number, 58)
        address = _DIGITS[digit] + address
    return address


def _number(public: bytes) -> int:
    """Return the number that the address of a public key writes in base 58."""
    body = bytes([SS58_PREFIX]) + public
    return int.from_bytes(body + blake2b(b"SS58PRE" + body).digest()[:2], "big")


class _HotkeyFile(msgspec.Struct):
    ss58Address: str | None = None  # noqa: N815 - the file's own spelling
    secretSeed: str | None = None  # noqa: N815


class Hotkey:
    """A key pair that signs requests, and its SS58 address."""

    def __init__(self, pair: tuple[bytes, bytes]) -> None:
        self._pair = pair
        self.address = address_of(pair[0])

    def __repr__(self) -> str:
        return f"Hotkey({self.address})"

    @classmethod
    def from_seed(cls, seed: str, *, address: str | None = None, source: str = "seed") -> Self:
        """Make the key of a secret seed.

        Args:
            seed: 64 hexadecimal digits, with or without ``0x``.
            address: The SS58 address that the seed must belong to. None skips this check.
            source: Origin of the seed, for messages.

        Raises:
            HotkeyError: The seed is malformed or belongs to another address.
        """
        match = _SEED.fullmatch(seed.strip())
        if match is None:
            raise HotkeyError(f"{source}: the seed must be 64 hexadecimal digits, with or without 0x, without quotes")
        key = cls(sr25519.pair_from_seed(bytes.fromhex(match[1])))
        if address not in (None, key.address):
            # Do not show the address: it may be a secret in the wrong place.
            raise HotkeyError(
                f"{source}: the seed does not belong to the given address, but to {key.address}: "
                "use the seed and the address of one hotkey"
            )
        return key

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a Bittensor hotkey file (``~/.bittensor/wallets/<wallet>/hotkeys/<name>``).

        Raises:
            HotkeyError: The file cannot be read, is a cold key, is encrypted, has no seed, or has a seed that does
                not belong to its address.
        """
        # A seed in the place of a path must not be shown.
        source = scrub(str(path))
        try:
            path = path.expanduser()
            if {path.name, path.resolve().name} & _COLD_NAMES:
                raise HotkeyError(f"{source} is a cold key, which the exporter never needs: use the file of the hotkey")
            content = path.read_bytes()
        except (OSError, RuntimeError) as error:
            # RuntimeError: the home directory of an unknown user.
            reason = getattr(error, "strerror", None) or error
            raise HotkeyError(
                f"cannot read the hotkey file {source}: {reason}. Check the path and its permissions"
            ) from None
        if content.startswith((b"$NACL", b"$ANSIBLE_VAULT", b"gAAAAA")):
            raise HotkeyError(f"{source} is encrypted: use a hotkey file in plain JSON with secretSeed")
        try:
            parsed = msgspec.json.decode(content, type=_HotkeyFile)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Omit the decoder's message: it may quote the file.
            raise HotkeyError(
                f"{source} is not a hotkey file: use a JSON file with ss58Address and secretSeed"
            ) from None
        if not parsed.secretSeed or not parsed.ss58Address:
            raise HotkeyError(f"{source} lacks secretSeed or ss58Address: use the file of a hotkey with its seed")
        return cls.from_seed(parsed.secretSeed, address=parsed.ss58Address, source=source)

    def headers(self, nonce: int, purpose: Purpose = "miner") -> dict[str, str]:
        """Sign a request at a Unix time. The service refuses a nonce that differs by more than 600 s."""
        message = f"{self.address}:{nonce}:{purpose}".encode()
        return {
            "X-Chutes-Hotkey": self.address,
            "X-Chutes-Nonce": str(nonce),
            "X-Chutes-Signature": sr25519.sign(self._pair, message).hex(),
        }


def verify_headers(address: str, nonce: str, signature: str, purpose: Purpose = "miner") -> bool:
    """Return whether a request with these headers was signed with the key of its address."""
    try:
        raw = bytes.fromhex(signature)
        return sr25519.verify(raw, f"{address}:{nonce}:{purpose}".encode(), public_key(address))
    except (ValueError, TypeError):
        return False


def readable_by_others(path: Path) -> bool:
    """Return whether users other than the owner may read a file."""
    return bool(path.stat().st_mode & 0o044)
