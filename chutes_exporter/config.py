"""Validated settings. They know no feed and no collector: those read the settings."""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from chutes_exporter.api.client import problem_of_address
from chutes_exporter.api.errors import scrub_input
from chutes_exporter.api.keys import Hotkey, HotkeyError, readable_by_others
from chutes_exporter.rules.money import Costs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

MinersChoice = Literal["neighbours", "watched", "all"]
"""Miners whose public data is exported: the watched ones and their neighbours in rank and in line
for the seat, only the watched ones, or all."""
ChutesChoice = Literal["relevant", "all"]
"""Chutes that are exported: those that a watched miner runs, ran in the past day, or could launch
now if it had the GPUs; or all."""
NEEDS_MINER = "needs a watched miner: add --hotkey or --hotkey-file"

_ADDRESS = re.compile(r"(?P<host>[\w.-]*|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})", re.ASCII)
"""A name, an IPv4 address, an IPv6 address in brackets or nothing, and a port."""
_URL = re.compile(
    r"https?://([\w-]+(\.[\w-]+)*\.?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[^?#@\s]*)?",
    re.ASCII | re.IGNORECASE,
)
"""A URL with a host, and with or without a port and a path, but without a user, query and fragment.
"""
_QUERY = re.compile(r"\?[!-\"$-~]*\Z", re.ASCII)
"""The query of a URL: visible ASCII characters but ``#``, with which a fragment would begin."""
_MAX_PORT = 65535


class ConfigError(ValueError):
    """A setting that cannot be used. The message says why, and has no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(scrub_input(message))


@dataclass(frozen=True)
class Address:
    """A host and port to listen on. Without a host, all addresses are meant."""

    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse ``:10064``, ``127.0.0.1:10064`` or ``[::1]:10064``, or raise ConfigError."""
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match["port"]) > _MAX_PORT:
            raise ConfigError(
                f"{text!r} is not an address to listen on: write :10064, 127.0.0.1:10064 or "
                "[::1]:10064"
            )
        return cls(match["host"].strip("[]"), int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """The settings of the exporter, which the flags describe. :func:`make_settings` makes them.

    Attributes:
        watched: Hotkeys whose public data is exported. Empty for the whole subnet.
        keys: Hotkeys with keys, whose private data is exported, too. All are in ``watched``.
        collectors: The user's choice whether a collector is on, by name. None means its default.
        gpu_costs: Cost of a GPU in US dollars an hour, by model.
        server_costs: The same of a GPU on a server, by the server's name.
    """

    api_url: str = "https://api.chutes.ai"
    api_timeout: float = 20.0
    # Its path or query may have a key, so that it is never shown.
    chain_url: str | None = field(default=None, repr=False)
    watched: frozenset[str] = frozenset()
    keys: tuple[Hotkey, ...] = ()
    listen: tuple[Address, ...] = (Address("", 10064),)
    web_config: Path | None = None
    timeout_offset: float = 0.5
    miners: MinersChoice = "all"
    chutes: ChutesChoice = "all"
    max_series: int = 100_000
    collectors: Mapping[str, bool | None] = field(default_factory=dict)
    gpu_costs: Mapping[str, float] = field(default_factory=dict)
    server_costs: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def watched_in_words(self) -> str:
        """The watched hotkeys, or that the whole subnet is watched."""
        return ", ".join(sorted(self.watched)) or "the whole subnet"

    @property
    def costs(self) -> Costs:
        """What the watched miners pay for GPUs."""
        return Costs(self.gpu_costs, self.server_costs)


def make_settings(
    *,
    hotkeys: Iterable[str] = (),
    keys: Iterable[Hotkey] = (),
    miners: MinersChoice | None = None,
    chutes: ChutesChoice | None = None,
    **others: Any,
) -> Settings:
    """Return settings, or raise ConfigError if one of them needs another that is missing.

    Args:
        hotkeys: Miners to watch.
        keys: Keys, whose miners are watched, too.
        miners: None becomes ``neighbours`` if a miner is watched, otherwise ``all``.
        chutes: None becomes ``all`` if ``miners`` is ``all``, otherwise ``relevant``.
        others: The other attributes of :class:`Settings`.
    """
    keys = tuple(keys)
    watched = frozenset(hotkeys) | {key.address for key in keys}
    if watched:
        miners = miners or "neighbours"
    else:
        for flag, value in (("--miners", miners), ("--chutes", chutes)):
            if value not in (None, "all"):
                raise ConfigError(f"{flag} {value} {NEEDS_MINER}")
        miners = "all"
    if chutes is None:
        chutes = "all" if miners == "all" else "relevant"
    return Settings(watched=watched, keys=keys, miners=miners, chutes=chutes, **others)


def find_risks(settings: Settings) -> Iterator[str]:
    """Yield a warning about each risky value."""
    url = settings.api_url
    host = Address(urlsplit(url).hostname or "")
    if settings.keys and url.startswith("http:") and not host.is_loopback:
        yield (
            f"--api.url: signatures go to {url} without encryption, "
            "and anybody who reads one can use it for 10 minutes. Use https://"
        )


@dataclass(frozen=True)
class Credentials:
    """What the hotkey files and the environment contain.

    Attributes:
        keys: The usable keys, one for each address.
        errors: Why other keys cannot be used.
        warnings: About the permissions of files.
    """

    keys: tuple[Hotkey, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def find_credentials(files: Iterable[Path], environment: Mapping[str, str]) -> Credentials:
    """Read hotkey files and the environment's key.

    Errors are returned, so that ``check`` can list them all.
    """
    keys_by_address: dict[str, Hotkey] = {}
    errors: list[str] = []
    warnings: list[str] = []
    for path in files:
        try:
            key = Hotkey.from_file(path)
        except HotkeyError as error:
            errors.append(f"--hotkey-file: {error}")
            continue
        # Files of the same hotkey have the same key.
        keys_by_address.setdefault(key.address, key)
        if readable_by_others(path.expanduser()):
            command = f"chmod 600 {shlex.quote(str(path.expanduser()))}"
            warnings.append(f"other users of this machine can read {path}: run {command}")
    try:
        # Each file gave a key or an error, so without both there was no file.
        has_no_file = not keys_by_address and not errors
        environment_key = Hotkey.from_environment(environment, is_only_source=has_no_file)
        if environment_key is not None:
            keys_by_address.setdefault(environment_key.address, environment_key)
    except HotkeyError as error:
        errors.append(str(error))
    return Credentials(
        keys=tuple(keys_by_address.values()),
        errors=tuple(map(scrub_input, errors)),
        warnings=tuple(warnings),
    )


def parse_number(text: str) -> float:
    """Parse a finite number above 0, or raise ConfigError."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ConfigError(f"{text!r} is not a number above 0")
    return number


def parse_cost(text: str) -> tuple[str, float]:
    """Parse ``NAME=USD_PER_HOUR`` into both, or raise ConfigError."""
    # The name of a server may have a "=", too.
    name, _, cost = text.rpartition("=")
    if not name.strip():
        raise ConfigError(f"{text!r} has no name before =: write for example h100=1.95")
    return name.strip(), parse_number(cost)


def parse_url(text: str, *, kind: str = "an address of an API") -> str:
    """Return an address with a lower-case scheme and no slash at its end, or raise ConfigError."""
    problem = problem_of_address(text) if _URL.fullmatch(text) else "its form is wrong"
    if problem is not None:
        # The error does not show the text, because it may have a password or a key.
        raise ConfigError(
            f"it is not {kind} ({problem}): write https://HOST, without a user or a fragment"
        )
    scheme, _, after_scheme = text.partition(":")
    return f"{scheme.lower()}:{after_scheme.rstrip('/')}"


def parse_node_url(text: str) -> str:
    """Return the address of a node, whose path or query may have a key, or raise ConfigError."""
    match = _QUERY.search(text)
    query = "" if match is None else match[0]
    return parse_url(text.removesuffix(query), kind="an address of a node") + query
