from __future__ import annotations

import json
from pathlib import Path

import pytest

from chutes_exporter.config import (
    Address,
    find_credentials,
    make_settings,
    parse_gpu_cost,
    parse_hotkey,
    parse_lifetime,
    parse_node_url,
    parse_server_cost,
    parse_url,
)
from tests.support import HOTKEY, KEY, TEST_SEED
from tests.test_credentials import OTHER


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":10064", Address("", 10064)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:65535", Address("localhost", 65535)),
    ],
)
def test_addresses_are_read_as_prometheus_writes_them(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://x.example", "https://x.example"),
        ("http://[::1]:9944", "http://[::1]:9944"),
        ("https://x.example/rpc", "https://x.example/…"),
        ("https://x.example/a/b?apikey=c@d/?e", "https://x.example/…"),
        ("https://x.example:8443?c", "https://x.example:8443/…"),
    ],
)
def test_the_address_of_a_node_may_have_a_key_and_shows_only_its_host(
    text: str, shown: str
) -> None:
    settings = make_settings(chain_url=parse_node_url(text))
    assert settings.chain_url is not None
    assert settings.chain_url.secret == text
    assert str(settings.chain_url) == repr(settings.chain_url) == shown
    assert f"chain_url={shown}," in repr(settings)


def test_a_key_for_a_node_that_goes_without_encryption_causes_a_warning() -> None:
    (warning,) = make_settings(chain_url="http://x.example/rpc?apikey=secret").warnings
    assert warning == "--chain.url: a key goes to the node without encryption. Use https://"
    for url in ("https://x.example?secret", "http://127.0.0.1:9944?secret", "http://x.example/rpc"):
        assert make_settings(chain_url=url).warnings == ()


def test_spaces_are_ignored_and_only_names_of_servers_keep_their_case() -> None:
    assert parse_gpu_cost(" L40S =0.5") == ("l40s", 0.5)
    assert parse_lifetime(" Scores =604800", ["chutes", "scores"]) == ("scores", 7 * 86400)
    # The name of a server may also have the character that ends it.
    assert parse_server_cost(" GPU=7 =0.5") == ("GPU=7", 0.5)
    assert parse_hotkey(f" {HOTKEY}\n") == HOTKEY
    assert parse_url("HTTP://[::1]:1/y/") == "http://[::1]:1/y"


@pytest.fixture
def hotkey_file(tmp_path: Path) -> Path:
    """Return the path of a hotkey file that only its owner can read."""
    path = tmp_path / "my hotkey"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o600)
    return path


def test_a_hotkey_file_that_others_can_read_causes_a_warning(
    hotkey_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(hotkey_file.parent))
    path = Path("~/my hotkey")
    assert find_credentials([path], {}).warnings == ()
    hotkey_file.chmod(0o644)
    (warning,) = find_credentials([path], {}).warnings
    assert warning == f"other users of this machine can read {path}: run chmod 600 '{hotkey_file}'"


def test_a_key_in_several_places_is_found_once(hotkey_file: Path) -> None:
    variables = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
    found = find_credentials([hotkey_file, hotkey_file], variables)
    assert [key.address for key in found.keys] == [HOTKEY]


def test_beside_a_missing_file_the_other_keys_are_found(hotkey_file: Path) -> None:
    found = find_credentials([hotkey_file, Path("missing")], {})
    assert [key.address for key in found.keys] == [HOTKEY]
    (error,) = found.errors
    reason = "cannot read the hotkey file missing: No such file or directory"
    assert f"--hotkey-file: {reason}" in error


def test_all_configured_hotkeys_are_watched() -> None:
    assert make_settings().miners == "all"
    settings = make_settings(hotkeys=[OTHER], keys=[KEY])
    assert settings.watched == {HOTKEY, OTHER}
    assert settings.keys == (KEY,)
    assert settings.miners == "neighbours"
    assert settings.chutes == make_settings(hotkeys=[OTHER], miners="watched").chutes == "relevant"
    everything = make_settings(hotkeys=[OTHER], miners="all")
    assert (everything.miners, everything.chutes) == ("all", "all")


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("[::]", False),
        ("[fd00::1]", False),
        ("127.evil.example", False),
    ],
)
def test_only_loopback_addresses_need_no_protection(host: str, *, is_local: bool) -> None:
    assert Address.parse(f"{host}:1").is_loopback is is_local
    assert bool(make_settings(api_url=f"http://{host}:1", keys=[KEY]).warnings) is not is_local
    # Signatures are safe with encryption, and without a key there are none.
    assert not make_settings(api_url=f"https://{host}:1", keys=[KEY]).warnings
    assert not make_settings(api_url=f"http://{host}:1").warnings
