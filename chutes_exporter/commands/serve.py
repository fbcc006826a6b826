"""The command ``serve``: the exporter behind its HTTP server."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import click
import structlog

from chutes_exporter import __version__, defaults, log
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.commands.options import (
    Command,
    api_options,
    checked,
    hotkey_options,
    read_credentials,
    run,
    serving_options,
    settings_of,
)
from chutes_exporter.config import ConfigError
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.plan import off_reason
from chutes_exporter.web.app import make_app
from chutes_exporter.web.config_file import WebConfig, load_web_config
from chutes_exporter.web.guard import Guard
from chutes_exporter.web.server import allow_many_files, bound_address, open_socket, serving, signals
from chutes_exporter.web.systemd import Notifier, take_sockets
from chutes_exporter.web.tls import CurrentContext

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Self

    from chutes_exporter.config import Address, Settings

_log = structlog.get_logger("serve")

_CHECK_INTERVAL = 1.0
_SETTLE_SECONDS = 0.2
"""A changed file must stay unchanged for this time before it is used."""


class Service:
    """An exporter behind its server, whose configuration can be read again while it runs.

    Args:
        settings: The settings.
        read_settings: Makes new settings from the same flags, and reads the files again. None keeps the settings.
        is_demo: Whether the private data is simulated and needs no protection.

    Use it as an asynchronous context manager.

    Raises:
        ConfigError: A setting cannot be used. The message says which and why.
    """

    def __init__(
        self, settings: Settings, read_settings: Callable[[], Settings] | None = None, *, is_demo: bool = False
    ) -> None:
        self.settings = settings
        self.addresses: list[Address] = []
        self.notifier = Notifier(os.environ)
        self._is_demo = is_demo
        self._read_settings = read_settings or (lambda: settings)
        self._stack = AsyncExitStack()
        self._exporter = Exporter(settings)
        self._web = WebConfig()
        self._tls: CurrentContext | None = None
        self._reloading = asyncio.Lock()
        self._hang_ups: set[asyncio.Task[str]] = set()
        self._problems = {"files": "", "web": ""}
        lifecycle = self.reload if settings.enable_lifecycle else None
        self._guard = Guard(make_app(self._exporter, reload=lifecycle))

    @property
    def scheme(self) -> str:
        """The scheme of its addresses."""
        return "http" if self._tls is None else "https"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.notifier.stopping()
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self._exporter)
        if self.settings.web_config is not None:
            self._web = load_web_config(self.settings.web_config)
            self._guard.adopt(self._web)
            if self._web.context is not None:
                self._tls = CurrentContext(self._web.context)
        exporter = self._exporter
        sockets = [stack.enter_context(opened) for opened in self._open_sockets()]
        self.addresses = [bound_address(opened) for opened in sockets]
        await stack.enter_async_context(serving(self._guard, sockets, context=self._tls))
        for work in (exporter.warm_up(), self._follow_files(), self.notifier.keep_alive()):
            self._in_background(stack, work)
        self._warn()
        _announce(exporter, self.addresses, encrypted=self._tls is not None)
        self.notifier.ready(f"listening on {' '.join(map(str, self.addresses))}")

    def _open_sockets(self) -> Iterable[socket.socket]:
        if self.settings.systemd_socket:
            return take_sockets(os.environ)
        return map(open_socket, self.settings.listen)

    @staticmethod
    def _in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
        async def end(task: asyncio.Task[None]) -> None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        stack.push_async_callback(end, asyncio.create_task(work))

    async def reload(self) -> str:
        """Read hotkey files and the web configuration again. Use both, or neither if one has a problem.

        Returns:
            The problem, or an empty text.
        """
        async with self._reloading:
            self.notifier.reloading()
            problem = ""
            try:
                settings = await asyncio.to_thread(self._read_settings)
                web = await self._read_web_config()
                self._adopt(web)
                self._exporter.reconfigure(settings)
            except Exception as error:  # noqa: BLE001 - the running service must survive every error
                problem = _log_failure(error)
            finally:
                self.notifier.ready(
                    f"reload failed, the old configuration stays in use: {problem}"
                    if problem
                    else "configuration reloaded"
                )
            if not problem:
                now = self._exporter.settings
                _log.info("configuration reloaded", watched=len(now.watched), keys=len(now.keys))
                self._warn()
            self._note(files=problem, web="")
            return problem

    def _warn(self) -> None:
        """Log the warnings about the configuration in use."""
        settings = self._exporter.settings
        for warning in settings.warnings:
            _log.warning("configuration warning", reason=warning)
        open_addresses = [address for address in self.addresses if not address.host and not address.path]
        if settings.keys and open_addresses and not self._is_demo and not self._is_protected():
            _log.warning(
                "private data is served without protection",
                addresses=" ".join(map(str, open_addresses)),
                advice="let only trusted clients reach the port, for example with --web.listen-address "
                "127.0.0.1:10064 outside containers, or set passwords or client certificates in --web.config.file",
            )

    def _is_protected(self) -> bool:
        """Tell whether clients need a password or a certificate."""
        context = self._web.context
        return bool(self._web.users) or (context is not None and context.verify_mode is ssl.CERT_REQUIRED)

    def hang_up(self) -> None:
        """Reload in the background for SIGHUP, unless a reload already waits for another."""
        if len(self._hang_ups) <= 1:
            task = asyncio.create_task(self.reload())
            self._hang_ups.add(task)
            task.add_done_callback(self._hang_ups.discard)

    def _note(self, **problems: str) -> None:
        """Note the problems of the last reload (``files``) and of the last web configuration (``web``)."""
        self._problems.update(problems)
        self._exporter.telemetry.note_reload(time.time(), good=not any(self._problems.values()))

    async def _read_web_config(self) -> WebConfig:
        if self.settings.web_config is None:
            return self._web
        web = await asyncio.to_thread(load_web_config, self.settings.web_config)
        # A file that is being written may look empty. So a reload never switches off TLS or passwords.
        if (web.context is None) is not (self._web.context is None):
            raise ConfigError(f"{self.settings.web_config}: a reload cannot switch TLS on or off. Restart the exporter")
        if self._web.users and not web.users:
            raise ConfigError(f"{self.settings.web_config}: a reload cannot remove all passwords. Restart the exporter")
        return web

    def _adopt(self, web: WebConfig) -> None:
        self._web = web
        self._guard.adopt(web)
        if self._tls is not None and web.context is not None:
            self._tls.current = web.context

    async def _follow_files(self) -> None:
        """Use changes of the web configuration and of the files that it names, for ever."""
        while self.settings.web_config is not None:
            await asyncio.sleep(_CHECK_INTERVAL)
            async with self._reloading:
                if not await asyncio.to_thread(self._web.changed):
                    # The user undid the change, so the configuration in use is up to date.
                    if self._problems["web"]:
                        self._note(web="")
                    continue
                try:
                    web = await self._read_web_config()
                    await asyncio.sleep(_SETTLE_SECONDS)
                    if await asyncio.to_thread(web.changed):
                        continue  # it is being written
                    self._adopt(web)
                except Exception as error:  # noqa: BLE001 - the running service must survive every error
                    # Try again, because a certificate and its key are rarely written at the same time. Log it once.
                    if _reason(error) != self._problems["web"]:
                        self._note(web=_log_failure(error, "web configuration reload failed"))
                else:
                    _log.info("web configuration reloaded")
                    self._note(web="")


def _log_failure(error: Exception, event: str = "configuration reload failed") -> str:
    """Log why the configuration could not be read, and return it."""
    reason = _reason(error)
    if isinstance(error, ConfigError):
        _log.error(event, reason=reason)
    else:
        # A bug: log its traceback.
        _log.error(event, reason=reason, exc_info=error)
    return reason


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _announce(exporter: Exporter, addresses: list[Address], *, encrypted: bool) -> None:
    settings = exporter.settings
    if not exporter.collectors:
        _log.warning("no collector is on", advice="add --collector.NAME; the page has only the exporter's own metrics")
    off: dict[str, list[str]] = {}
    for collector in COLLECTORS:
        if (reason := off_reason(collector, settings)) is not None:
            off.setdefault(f"off_{reason}", []).append(collector.name)
    _log.info(
        "listening",
        version=__version__,
        addresses=" ".join(map(str, addresses)),
        tls=encrypted,
        api=settings.api_url,
        watched=" ".join(sorted(settings.watched)) or "whole subnet",
        keys=len(settings.keys),
        collectors=" ".join(collector.name for collector in exporter.collectors),
        **{reason: " ".join(names) for reason, names in off.items()},
    )


@click.command(cls=Command)
@hotkey_options("Without a hotkey, the whole subnet is watched.")
@api_options
@serving_options(defaults.LISTEN_ADDRESS)
def serve(**flags: Any) -> None:
    """Serve metrics of the Chutes API (the default command).

    Without flags it listens on :10064 and exports the whole subnet from the public endpoints.
    """
    context = click.get_current_context()

    def read_settings() -> Settings:
        # A reload runs in a thread, which does not know the command. Service handles the errors.
        with context.scope(cleanup=False):
            return settings_of(flags, read_credentials(flags))

    settings = checked(settings_of, flags, read_credentials(flags))
    log.configure(flags["log_level"], flags["log_format"])
    run(run_serve, settings, read_settings)


async def run_serve(settings: Settings, read_settings: Callable[[], Settings]) -> None:
    """Serve until SIGTERM or SIGINT. SIGHUP reads the configuration again.

    Args:
        settings: The settings.
        read_settings: Makes new settings from the same flags, and reads the files again.

    Raises:
        ConfigError: A setting cannot be used. The message says which and why.
    """
    allow_many_files()
    service = Service(settings, read_settings)
    with signals(service.hang_up) as stop:
        async with service:
            await stop.wait()
            _log.info("stopping")
