"""Validated settings."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from chutes_exporter import defaults
from chutes_exporter.api.errors import scrub
from chutes_exporter.api.keys import Hotkey, HotkeyError, public_key, readable_by_others
from chutes_exporter.api.meaning import GPU_MODELS
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.table import FEEDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from chutes_exporter.collectors import MinersChoice
    from chutes_exporter.feeds.feed import Feed

T = TypeVar("T")

_RESERVED_PATHS = ("/", "/probe", "/sd", "/-/healthy", "/-/ready", "/-/reload")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
_MISLEADS = re.compile(r"//|/\.{1,2}(/|$)")
"""Parts of a path with which a browser asks another host or another path."""
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_MAX_PORT = 65535
_MAX_PORT_DIGITS = 5


def one_line(text: str) -> str:
    """Return a text of the user on one line and without seeds.

    Control characters are escaped, because a path may contain any. 64 hexadecimal digits may be a seed.
    """
    return scrub("".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text))


class ConfigError(ValueError):
    """A setting that cannot be used. The message says why, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


_UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """An address to listen on.

    Attributes:
        host: An address or host name. Empty for all addresses of IPv4 and IPv6.
        port: The port. 0 for any free port.
        path: Path of a Unix socket, instead of host and port.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse ``:10064``, ``127.0.0.1:10064``, ``[::1]:10064`` or ``unix:/run/chutes-exporter.sock``.

        Raises:
            ConfigError: The text is not such an address.
        """
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            if not path.startswith("/") or "\0" in path:
                raise ConfigError(f"{text!r} is not a Unix socket address: write unix: and an absolute path")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            bracketed = True
        else:
            bracketed = False
        # Python refuses to convert thousands of digits.
        valid_port = port.isascii() and port.isdigit() and len(port) <= _MAX_PORT_DIGITS and int(port) <= _MAX_PORT
        if not colon or not valid_port or (":" in host and not bracketed) or "/" in host:
            raise ConfigError(
                f"{text!r} is not an address to listen on: write :10064, 127.0.0.1:10064, [::1]:10064 or unix:/PATH"
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """The settings of the exporter.

    Attributes:
        api_url: Base address of the Chutes API.
        api_timeout: Abort a request to the API after this many seconds without data.
        watched: Hotkeys whose public data is exported. Empty for the whole subnet.
        keys: Hotkeys with seeds, whose private data is exported, too. All are in ``watched``.
        listen: Addresses to listen on.
        systemd_socket: Whether systemd has opened the sockets instead.
        web_config: Path of the web configuration (TLS, passwords), or None.
        enable_lifecycle: Whether to serve ``POST /-/reload``.
        max_requests: Maximum concurrent scrapes. 0 means unlimited.
        telemetry_path: Path of the metrics page.
        timeout_offset: Seconds by which an answer comes before the scraper's timeout.
        miners: The miners whose public data is exported.
        max_series: Maximum series of all collectors together.
        created_timestamps: Whether OpenMetrics pages have ``_created`` lines.
        freshness: Time to live and maximum age in seconds, by name, of feeds for which the user set one of them.
        collectors: The user's choice whether a collector is on, by name.
        gpu_costs: Cost of a GPU in US dollars an hour, by model.
        daily_emission: Alpha that all miners of the subnet get in a day, or None.
        alpha_price: Price of one alpha in US dollars, or None.
        warnings: Warnings about these settings.
    """

    api_url: str = defaults.API_URL
    api_timeout: float = defaults.API_TIMEOUT
    watched: frozenset[str] = frozenset()
    keys: tuple[Hotkey, ...] = ()
    listen: tuple[Address, ...] = (Address("", 10064),)
    systemd_socket: bool = False
    web_config: Path | None = None
    enable_lifecycle: bool = False
    max_requests: int = defaults.MAX_REQUESTS
    telemetry_path: str = defaults.TELEMETRY_PATH
    timeout_offset: float = defaults.TIMEOUT_OFFSET
    miners: MinersChoice = "all"
    max_series: int = defaults.MAX_SERIES
    created_timestamps: bool = False
    freshness: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    collectors: Mapping[str, bool] = field(default_factory=dict)
    gpu_costs: Mapping[str, float] = field(default_factory=dict)
    daily_emission: float | None = None
    alpha_price: float | None = None
    warnings: tuple[str, ...] = ()

    def tuned(self, feed: Feed[T]) -> Feed[T]:
        """Return a feed with the configured lifetimes."""
        return feed.with_lifetimes(self.freshness)


@dataclass(frozen=True)
class Credentials:
    """The configured keys and their problems.

    Attributes:
        keys: Usable keys, one for each address.
        errors: A message for each unusable key.
        warnings: A message for each file that others can read.
    """

    keys: tuple[Hotkey, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def find_credentials(
    files: Iterable[Path], environment: Mapping[str, str], *, source: str = "--hotkey-file"
) -> Credentials:
    """Read hotkey files, and ``MINER_SEED`` with ``MINER_SS58``.

    Args:
        files: Paths of hotkey files.
        environment: The environment variables.
        source: The flag or the variable of these paths, for messages.
    """
    keys: dict[str, Hotkey] = {}
    errors: list[str] = []
    warnings: list[str] = []
    for path in files:
        if str(path).strip() in ("", "."):
            errors.append(f"{source} is empty: use the path of a hotkey file")
            continue
        # Unlike Path.exists, this is false where the user may not look.
        if (words := _ADDRESSES.fullmatch(str(path))) and not os.path.exists(path):  # noqa: PTH110
            what = "has addresses" if words[1] else "is an address"
            errors.append(
                f"{source}: {path} {what}, not the path of a hotkey file. "
                "Use --hotkey or CHUTES_EXPORTER_HOTKEY for an address"
            )
            continue
        try:
            key = Hotkey.from_file(path)
        except HotkeyError as error:
            errors.append(f"{source}: {error}")
            continue
        keys.setdefault(key.address, key)
        path = path.expanduser()  # noqa: PLW2901 - as it was read
        if readable_by_others(path):
            warnings.append(f"other users of this machine can read {path}: run chmod 600 {shlex.quote(str(path))}")
    seed, address = environment.get("MINER_SEED", "").strip(), environment.get("MINER_SS58", "").strip()
    if seed and not address:
        errors.append("MINER_SEED is set without MINER_SS58: set MINER_SS58 to the address of the seed's hotkey")
    elif seed:
        try:
            key = Hotkey.from_seed(seed, address=address, source="MINER_SEED and MINER_SS58")
            keys.setdefault(key.address, key)
        except HotkeyError as error:
            errors.append(str(error))
    elif "MINER_SEED" in environment:
        effect = "it has no effect" if keys else "only public data is exported"
        warnings.append(f"MINER_SEED is empty: {effect}. Set it to the hotkey's seed, or unset it")
    # A list of files with several empty paths has the same error several times.
    unique = dict.fromkeys(map(one_line, errors))
    return Credentials(tuple(keys.values()), tuple(unique), tuple(map(one_line, warnings)))


_ADDRESSES = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,50}([,\s]+[1-9A-HJ-NP-Za-km-z]{46,50})*[,\s]*")
"""Text that looks like SS58 addresses of accounts, with or without a typing error."""
_VARIABLE_PREFIX = "CHUTES_EXPORTER_"
_OTHER_VARIABLES = re.compile(r"CHUTES_EXPORTER_(TEST_.*|SERVICE_HOST|SERVICE_PORT.*|PORT_[0-9]+_.*)")
"""Variables of the test suite, and those that Kubernetes sets for a Service with the name chutes-exporter."""


def variable_warnings(environment: Mapping[str, str], known: Collection[str]) -> tuple[str, ...]:
    """Return a sentence for each variable of the exporter that is unknown, or that names no hotkey.

    Args:
        environment: The environment variables.
        known: Names of all variables that flags have.
    """
    warnings = []
    if environment.get(f"{_VARIABLE_PREFIX}HOTKEY", "set").strip() == "":
        warnings.append("CHUTES_EXPORTER_HOTKEY is empty and has no effect: set it to a hotkey, or unset it")
    for name in sorted(environment):
        if not name.upper().startswith(_VARIABLE_PREFIX) or name in known or _of_kubernetes(name, environment[name]):
            continue
        warnings.append(f"{name} is unknown and has no effect: {_nearest_variable(name, known)}")
    return tuple(map(one_line, warnings))


def _of_kubernetes(name: str, content: str) -> bool:
    """Return whether Kubernetes, or a test, sets a variable."""
    is_link = name == f"{_VARIABLE_PREFIX}PORT" and "://" in content
    return is_link or _OTHER_VARIABLES.fullmatch(name) is not None


def _nearest_variable(name: str, known: Collection[str]) -> str:
    """Return a hint to the variable that the user probably means."""
    if "SEED" in name.upper() and "SIMULAT" not in name.upper():
        return "set MINER_SEED and MINER_SS58 instead"
    if "SS58" in name.upper():
        return f"set {_VARIABLE_PREFIX}HOTKEY instead"
    short = name.upper().removeprefix(_VARIABLE_PREFIX)
    names = {one.removeprefix(_VARIABLE_PREFIX): one for one in known if one.startswith(_VARIABLE_PREFIX)}
    # Without the prefix, which all have, or by whole words: LISTEN_ADDRESS is in WEB_LISTEN_ADDRESS.
    containing = [one for one in sorted(names, key=len) if f"_{short}_" in f"_{one}_"]
    nearest = difflib.get_close_matches(short, names, n=1) or containing
    return f"the nearest name is {names[nearest[0]]}" if nearest else "chutes-exporter --help lists all variables"


_CHOICES = {
    f"{_VARIABLE_PREFIX}HOTKEY": "a hotkey",
    f"{_VARIABLE_PREFIX}HOTKEY_FILE": "the path of a hotkey file",
    "HOTKEY": "the path of a hotkey file",
    "MINER_SS58": "the address of the miner's hotkey",
    "MINER_SEED": "the seed of the miner's hotkey",
}
"""The variables that choose a miner, and what they have."""


def require_a_choice(environment: Mapping[str, str]) -> None:
    """Refuse to watch the whole subnet because a variable that should choose a miner is empty.

    Args:
        environment: The environment variables.

    Raises:
        ConfigError: A variable is empty. The message names it.
    """
    for name, content in _CHOICES.items():
        if environment.get(name, "set").strip() == "":
            raise ConfigError(f"{name} is empty: set it to {content}, or unset it to watch the whole subnet")


_PROTECTIONS = {
    f"{_VARIABLE_PREFIX}WEB_CONFIG_FILE": (
        "the path of a web configuration, or unset it to serve without TLS and passwords"
    ),
    f"{_VARIABLE_PREFIX}WEB_LISTEN_ADDRESS": (
        f"an address to listen on, or unset it to listen on {defaults.LISTEN_ADDRESS}"
    ),
}
"""The variables that limit who can connect, and what they have."""


def require_protection(environment: Mapping[str, str], flags: Iterable[str]) -> None:
    """Refuse to serve everybody because a variable that should limit this is empty.

    Args:
        environment: The environment variables.
        flags: Names of the flags that are not set, such as ``web_config_file``.

    Raises:
        ConfigError: The variable of such a flag is empty.
    """
    for flag in flags:
        name = f"{_VARIABLE_PREFIX}{flag.upper()}"
        if environment.get(name, "set").strip() == "":
            raise ConfigError(f"{name} is empty: set it to {_PROTECTIONS[name]}")


def _watched_hotkeys(hotkeys: Iterable[str], source: str, miner_ss58: str) -> set[str]:
    """Return the configured addresses.

    Raises:
        ConfigError: One of them is not an address; the message names the flag or the variable.
    """
    given = [(source, hotkey.strip()) for hotkey in hotkeys]
    given += [("MINER_SS58", miner_ss58.strip())] if miner_ss58.strip() else []
    for name, hotkey in given:
        if not hotkey:
            raise ConfigError(f"{name} is empty: use a hotkey, or remove it to watch the whole subnet")
        if "," in hotkey:
            advice = "repeat --hotkey for each hotkey" if name == "--hotkey" else "separate hotkeys by spaces"
            raise ConfigError(f"{name} has a comma: {advice}")
        try:
            public_key(hotkey)
        except HotkeyError as error:
            raise ConfigError(f"{name}: {error}. Use the address of a miner's hotkey, which starts with 5") from None
    return {hotkey for _, hotkey in given}


def make_settings(  # noqa: PLR0913, D417 - one argument for each flag, as in Settings
    *,
    api_url: str = defaults.API_URL,
    api_timeout: float = defaults.API_TIMEOUT,
    hotkeys: Iterable[str] = (),
    hotkeys_source: str = "--hotkey",
    credentials: Credentials | None = None,
    miner_ss58: str = "",
    listen: Iterable[str] = (defaults.LISTEN_ADDRESS,),
    systemd_socket: bool = False,
    web_config: Path | None = None,
    enable_lifecycle: bool = False,
    max_requests: int = defaults.MAX_REQUESTS,
    telemetry_path: str = defaults.TELEMETRY_PATH,
    timeout_offset: float = defaults.TIMEOUT_OFFSET,
    miners: MinersChoice | None = None,
    max_series: int = defaults.MAX_SERIES,
    created_timestamps: bool = False,
    ttl: Iterable[str] = (),
    max_age: Iterable[str] = (),
    collectors: Mapping[str, bool] | None = None,
    gpu_costs: Iterable[str] = (),
    daily_emission: float | None = None,
    alpha_price: float | None = None,
) -> Settings:
    """Validate the user's configuration. Arguments that are not listed here are as in :class:`Settings`.

    Args:
        hotkeys: Addresses to watch.
        hotkeys_source: The flag or the variable of these addresses, for messages.
        credentials: The configured keys.
        miner_ss58: ``MINER_SS58``, which is watched with or without a seed.
        listen: Addresses to listen on, as text.
        miners: None means ``watched`` with hotkeys and ``all`` without.
        ttl: ``FEED=SECONDS``: time for which an answer of the feed is fresh.
        max_age: ``FEED=SECONDS``: age at which an answer of the feed is dropped.
        gpu_costs: ``MODEL=USD_PER_HOUR``: cost of a GPU of the model.

    Raises:
        ConfigError: A setting cannot be used. The message says which and why.
    """
    credentials = credentials or Credentials((), (), ())
    if credentials.errors:
        raise ConfigError("; ".join(credentials.errors))
    warnings = list(credentials.warnings)
    watched = _watched_hotkeys(hotkeys, hotkeys_source, miner_ss58)
    watched |= {key.address for key in credentials.keys}
    if miners == "watched" and not watched:
        raise ConfigError("--miners watched needs a watched miner: add --hotkey or --hotkey-file")
    url = _validated_url(api_url)
    if url.startswith("http:") and credentials.keys and not _is_loopback(url):
        warnings.append(
            f"--api.url: signatures go to {url} without encryption, "
            "and anybody who reads one can use it for 10 minutes. Use https://"
        )
    _require_usable(collectors or {}, credentials, watched)
    try:
        addresses = tuple(Address.parse(text) for text in listen)
    except ConfigError as error:
        raise ConfigError(f"--web.listen-address: {error}") from None
    if not addresses:
        raise ConfigError(f"--web.listen-address is empty: use {defaults.LISTEN_ADDRESS} or another address")
    if not _PATH.fullmatch(telemetry_path) or telemetry_path in _RESERVED_PATHS or _MISLEADS.search(telemetry_path):
        raise ConfigError(
            f"--web.telemetry-path {telemetry_path!r} cannot be the path of the metrics: start with /, "
            f"use only letters, digits and -._~/, and do not use //, /./, /../ or {', '.join(_RESERVED_PATHS)}"
        )
    if web_config is not None and str(web_config).strip() in ("", "."):
        raise ConfigError("--web.config.file is empty: use the path of a web configuration")
    costs = _gpu_costs(gpu_costs)
    if unknown := sorted(costs.keys() - GPU_MODELS):
        warnings.append(
            f"--gpu.cost has an unknown GPU model: {', '.join(unknown)}. The known models are {', '.join(GPU_MODELS)}"
        )
    return Settings(
        api_url=url,
        api_timeout=_seconds("--api.timeout", api_timeout),
        watched=frozenset(watched),
        keys=credentials.keys,
        listen=addresses,
        systemd_socket=systemd_socket,
        web_config=web_config,
        enable_lifecycle=enable_lifecycle,
        max_requests=max_requests,
        telemetry_path=telemetry_path,
        timeout_offset=_seconds("--scrape.timeout-offset", timeout_offset),
        miners=miners or ("watched" if watched else "all"),
        max_series=max_series,
        created_timestamps=created_timestamps,
        freshness=_freshness(ttl, max_age),
        collectors=dict(collectors or {}),
        gpu_costs=costs,
        daily_emission=_figure("--subnet.daily-emission", daily_emission),
        alpha_price=_figure("--alpha.price", alpha_price),
        warnings=tuple(warnings),
    )


def _require_usable(collectors: Mapping[str, bool], credentials: Credentials, watched: set[str]) -> None:
    """Refuse collectors that the user enabled although they cannot give any data."""
    for collector in COLLECTORS:
        if collectors.get(collector.name):
            if collector.needs_key and not credentials.keys:
                raise ConfigError(
                    f"--collector.{collector.name} needs a hotkey's seed: "
                    "add --hotkey-file, or set MINER_SS58 and MINER_SEED"
                )
            if collector.scope == "miner" and not watched:
                raise ConfigError(f"--collector.{collector.name} needs a watched miner: add --hotkey or --hotkey-file")


def _freshness(ttl: Iterable[str], max_age: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the time to live and maximum age of each feed for which the user set one of them."""
    fresh, kept = _by_feed("--feed.ttl", ttl), _by_feed("--feed.max-age", max_age)
    found = {}
    for feed in FEEDS:
        if feed.name not in fresh and feed.name not in kept:
            continue
        seconds = fresh.get(feed.name, feed.ttl)
        # A longer time to live raises the maximum age, too.
        bound = kept.get(feed.name, max(feed.max_age, seconds))
        if bound < seconds:
            raise ConfigError(
                f"--feed.max-age {feed.name}={bound:g} is less than the feed's time to live, {seconds:g} s: "
                "answers would be dropped while they are fresh"
            )
        found[feed.name] = seconds, bound
    return found


def _by_feed(flag: str, texts: Iterable[str]) -> dict[str, float]:
    names = {feed.name for feed in FEEDS}
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            seconds = float(number)
        except ValueError:
            seconds = math.nan
        if name not in names or not 0 <= seconds < math.inf:
            raise ConfigError(
                f"{flag} {text!r} is invalid: write FEED=SECONDS with a plain number. "
                f"Feeds are {', '.join(sorted(names))}"
            )
        found[name] = seconds
    return found


def _gpu_costs(texts: Iterable[str]) -> dict[str, float]:
    costs = {}
    for text in texts:
        model, _, number = text.partition("=")
        # The API writes models in lower case.
        model = model.strip().lower()
        try:
            cost = float(number)
        except ValueError:
            cost = math.nan
        if not model or not 0 <= cost < math.inf:
            raise ConfigError(f"--gpu.cost {text!r} is invalid: write MODEL=USD_PER_HOUR, for example h100=1.95")
        costs[model] = cost
    return costs


def _seconds(flag: str, value: float) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"{flag} {value:g} is not a number of seconds: write a plain number, for example 20")
    return value


def _figure(flag: str, value: float | None) -> float | None:
    if value is not None and not 0 <= value < math.inf:
        raise ConfigError(f"{flag} {value:g} is invalid: write a number that is 0 or more")
    return value


def _validated_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or parts.query or parts.fragment:
        # Do not show an address that may contain a password.
        shown = "--api.url" if "@" in text else f"--api.url {text!r}"
        raise ConfigError(
            f"{shown} is not an address of an API: write https://HOST or http://HOST, without a query or a fragment"
        )
    if "@" in parts.netloc:
        raise ConfigError("--api.url has a user or a password: write https://HOST without them")
    # This also writes the scheme in lower case, as every check of it expects.
    return urlunsplit(parts).rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
