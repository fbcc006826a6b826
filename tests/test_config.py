from __future__ import annotations

import json
from pathlib import Path

import pytest

from chutes_exporter.config import (
    Address,
    find_credentials,
    find_risks,
    make_settings,
    parse_node_url,
)
from tests.support import HOTKEY, KEY, TEST_SEED


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("HTTPS://x.example/", "https://x.example"),
        ("http://[::1]:9944", "http://[::1]:9944"),
        ("https://x.example/a/b?apikey=c@d/?e", "https://x.example/a/b?apikey=c@d/?e"),
        ("https://x.example:8443/?c", "https://x.example:8443?c"),
    ],
)
def test_the_address_of_a_node_may_have_a_key_and_is_not_shown(text: str, parsed: str) -> None:
    assert parse_node_url(text) == parsed
    assert "chain_url" not in repr(make_settings(chain_url=parsed))


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
    settings = make_settings(api_url=f"http://{host}:1", keys=[KEY])
    assert bool([*find_risks(settings)]) is not is_local
    # Signatures are safe with encryption, and without a key there are none.
    assert not [*find_risks(make_settings(api_url=f"https://{host}:1", keys=[KEY]))]
    assert not [*find_risks(make_settings(api_url=f"http://{host}:1"))]
