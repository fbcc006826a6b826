"""Hotkeys: addresses, the files that hold them, and signing with them.

A seed lives in one object, is never shown, and leaves it only as signatures.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import base58
import msgspec
import sr25519

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

SS58_PREFIX = 42
"""The network number in the addresses of Bittensor: the generic Substrate one."""

Purpose = Literal["miner", "tee"]
"""The word at the end of a signed message. The service accepts a signature only where it expects its word."""

_PUBLIC_KEY_BYTES = 32
_CHECKSUM_BYTES = 2
_MAX_PREFIX_BYTES = 2
_LONG_PREFIX = 64
"""From this first byte on, a network number has two bytes."""
_PREFIX_END = 128
_MAX_FILE_BYTES = 64 * 1024
_SEED = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")
_ADDRESS_SHAPE = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,52}")
_COLD_NAMES = frozenset({"coldkey", "coldkeypub", "coldkeypub.txt"})


class HotkeyError(ValueError):
    """A key that cannot be used, with the reason in a sentence. Never holds key material."""


def _shown(text: str, what: str) -> str:
    """Quote what the user gave, unless it could be a secret that was put into the wrong place."""
    if _SEED.fullmatch(text.strip()):
        return f"what is given as {what} (not shown: it looks like a seed)"
    if _ADDRESS_SHAPE.fullmatch(text):
        return repr(text)
    return f"what is given as {what} (not shown, {len(text)} characters)"


def public_key(address: str) -> bytes:
    """Return the 32 bytes behind an SS58 address.

    Args:
        address: An SS58 address of a hotkey, network prefix 42.

    Raises:
        HotkeyError: The text is no such address.
    """
    # The shape bounds the work, too: decoding takes time with the square of the length.
    raw = base58.b58decode(address) if _ADDRESS_SHAPE.fullmatch(address) else b""
    body, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    prefix = _prefix(body)
    if prefix is None or checksum != _checksum(body):
        raise HotkeyError(f"{_shown(address, 'an address')} is not an SS58 address")
    if prefix != SS58_PREFIX:
        raise HotkeyError(
            f"{_shown(address, 'an address')} is of another network (prefix {prefix}): a Bittensor hotkey starts with 5"
        )
    if len(body) != 1 + _PUBLIC_KEY_BYTES:
        raise HotkeyError(f"{_shown(address, 'an address')} is not the address of a key of {_PUBLIC_KEY_BYTES} bytes")
    return body[1:]


def address_of(public: bytes) -> str:
    """Return the SS58 address of a 32-byte public key on Bittensor."""
    body = bytes([SS58_PREFIX]) + public
    return base58.b58encode(body + _checksum(body)).decode("ascii")


def _prefix(body: bytes) -> int | None:
    """Return the network number that an address begins with, or None where it begins with something else."""
    if len(body) < _MAX_PREFIX_BYTES or body[0] >= _PREFIX_END:
        return None
    first, second = body[:_MAX_PREFIX_BYTES]
    if first < _LONG_PREFIX:
        return first
    return (first & 0x3F) << 2 | second >> 6 | (second & 0x3F) << 8


def _checksum(body: bytes) -> bytes:
    return blake2b(b"SS58PRE" + body).digest()[:_CHECKSUM_BYTES]


class _HotkeyFile(msgspec.Struct):
    ss58Address: str | None = None  # noqa: N815 - the file's own spelling
    secretSeed: str | None = None  # noqa: N815


class Hotkey:
    """A key pair that signs requests.

    Attributes:
        address: Its SS58 address.
        source: Where it came from, for messages: a path or the names of environment variables.
    """

    __slots__ = ("_pair", "address", "source")

    def __init__(self, pair: tuple[bytes, bytes], source: str) -> None:
        self._pair = pair
        self.address = address_of(pair[0])
        self.source = source

    def __repr__(self) -> str:
        return f"Hotkey({self.address})"

    def __reduce__(self) -> str:
        # Pickling would write the secret wherever the pickle goes.
        raise TypeError("a Hotkey cannot be pickled")

    @classmethod
    def from_seed(cls, seed: str, *, address: str | None = None, source: str = "seed") -> Self:
        """Make the key of a secret seed.

        Args:
            seed: 64 hexadecimal digits, with or without ``0x``.
            address: The SS58 address that the seed must belong to; not checked when None.
            source: Where the seed came from, for messages.

        Raises:
            HotkeyError: The seed has another form, or belongs to another address.
        """
        match = _SEED.fullmatch(seed.strip())
        if match is None:
            raise HotkeyError(f"{source}: the seed is not 64 hexadecimal digits (with or without 0x)")
        key = cls(sr25519.pair_from_seed(bytes.fromhex(match[1])), source)
        if address is not None:
            public_key(address)
            if key.address != address:
                raise HotkeyError(
                    f"{source}: the seed does not belong to {address}, but to {key.address}: "
                    "one of the two is from another hotkey"
                )
        return key

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a Bittensor hotkey file (``~/.bittensor/wallets/<wallet>/hotkeys/<name>``).

        Raises:
            HotkeyError: The file is missing or unreadable, a cold key, encrypted, without a seed, or has a seed
                that does not belong to its address.
        """
        source = str(path)
        if _SEED.fullmatch(path.name):
            raise HotkeyError("the path of a hotkey file is due, and this looks like a seed (not shown)")
        try:
            path = path.expanduser()
            if {path.name, path.resolve().name} & _COLD_NAMES:
                raise HotkeyError(f"{source} is a cold key: it is never needed here. Give the hotkey's file instead")
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES)
        except (OSError, RuntimeError) as error:
            # RuntimeError: a loop of links, or the home of a user that does not exist.
            reason = getattr(error, "strerror", None) or error
            raise HotkeyError(f"cannot read the hotkey file {source}: {reason}") from None
        if content.startswith((b"$NACL", b"$ANSIBLE_VAULT", b"gAAAAA")):
            raise HotkeyError(f"{source} is encrypted, as cold keys are: a hotkey file is plain JSON with secretSeed")
        try:
            parsed = msgspec.json.decode(content, type=_HotkeyFile)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # The decoder's own message is left out: it may quote the file.
            raise HotkeyError(f"{source} is not a hotkey file: JSON with ss58Address and secretSeed is due") from None
        if not parsed.secretSeed:
            raise HotkeyError(f"{source} has no secretSeed: it holds no hotkey that can sign")
        if not parsed.ss58Address:
            raise HotkeyError(f"{source} has no ss58Address: the seed cannot be checked against it")
        return cls.from_seed(parsed.secretSeed, address=parsed.ss58Address, source=source)

    def headers(self, nonce: int, purpose: Purpose = "miner") -> dict[str, str]:
        """Sign a request.

        Args:
            nonce: Unix time in whole seconds; the service refuses one more than 600 s from its own clock.
            purpose: The word that the endpoint expects.
        """
        message = f"{self.address}:{nonce}:{purpose}".encode()
        return {
            "X-Chutes-Hotkey": self.address,
            "X-Chutes-Nonce": str(nonce),
            "X-Chutes-Signature": sr25519.sign(self._pair, message).hex(),
        }


def verify_headers(address: str, nonce: str, signature: str, purpose: Purpose = "miner") -> bool:
    """Tell whether a request was signed by the address it names.

    Args:
        address: ``X-Chutes-Hotkey``.
        nonce: ``X-Chutes-Nonce``.
        signature: ``X-Chutes-Signature``.
        purpose: The word that the endpoint expects.
    """
    try:
        raw = bytes.fromhex(signature)
        return sr25519.verify(raw, f"{address}:{nonce}:{purpose}".encode(), public_key(address))
    except (ValueError, TypeError):
        return False


def readable_by_others(path: Path) -> bool:
    """Tell whether users other than the owner may read a file."""
    return bool(path.stat().st_mode & 0o044)
