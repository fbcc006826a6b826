from __future__ import annotations

import json
from pathlib import Path

import pytest

from chutes_exporter.config import (
    Address,
    ConfigError,
    Credentials,
    find_credentials,
    make_settings,
    variable_warnings,
)
from chutes_exporter.feeds.table import CHUTES, SCORES, STATS
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY, KEY

OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"
WITH_KEY = Credentials((KEY,), (), ())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":10064", Address("", 10064)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:65535", Address("localhost", 65535)),
        ("unix:/run/exporter.sock", Address(path="/run/exporter.sock")),
    ],
)
def test_addresses_are_read_as_prometheus_writes_them(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["unix:", "unix:relative", "unix:/a\0b"])
def test_a_unix_socket_has_an_absolute_path(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a Unix socket"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["", "10064", "::1:80", ":65536", ":-1", ":x", "http://x:80", "[::1]", ":²"])
def test_an_invalid_listen_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="address to listen on"):
        Address.parse(text)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.chutes.ai",
        "ftp://x",
        "https://",
        "https://x?y",
        "https://x#y",
        "http://[",
        "http://x:y",
        "http://exa mple",
        "http://a..b",
    ],
)
def test_an_invalid_api_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not an address of an API"):
        make_settings(api_url=url)


@pytest.mark.parametrize(
    "url", ["https://user:password@x", "https://:password@x", "https://password@", "x://password@y"]
)
def test_a_password_in_the_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--api\.url") as refusal:
        make_settings(api_url=url)
    assert "password@" not in str(refusal.value)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--api\.timeout nan is not a number of seconds"):
        make_settings(api_timeout=float("nan"))
    with pytest.raises(ConfigError, match=r"^--scrape\.timeout-offset inf is not a number of seconds"):
        make_settings(timeout_offset=float("inf"))


def test_white_space_around_a_seed_or_an_address_is_ignored() -> None:
    found = find_credentials([], {"MINER_SEED": f"{TEST_SEED}\n", "MINER_SS58": f"{HOTKEY}\n"})
    assert [key.address for key in found.keys] == [HOTKEY]
    assert make_settings(hotkeys=[f" {HOTKEY} "], miner_ss58=f"{HOTKEY}\n").watched == {HOTKEY}
    assert make_settings(miner_ss58="\n").watched == frozenset()


def test_an_empty_seed_causes_a_warning() -> None:
    (warning,) = find_credentials([], {"MINER_SEED": "", "MINER_SS58": HOTKEY}).warnings
    assert warning.startswith("MINER_SEED is empty: only public data is exported.")


def test_an_empty_seed_has_no_effect_beside_a_hotkey_file(tmp_path: Path) -> None:
    path = tmp_path / "hotkey"
    path.write_text(json.dumps({"secretSeed": TEST_SEED, "ss58Address": HOTKEY}))
    path.chmod(0o600)
    (warning,) = find_credentials([path], {"MINER_SEED": ""}).warnings
    assert warning.startswith("MINER_SEED is empty: it has no effect.")


def test_a_path_with_a_tilde_is_that_of_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "my hotkey"
    path.write_text(json.dumps({"secretSeed": TEST_SEED, "ss58Address": HOTKEY}))
    path.chmod(0o644)
    found = find_credentials([Path("~/my hotkey")], {})
    assert [key.address for key in found.keys] == [HOTKEY]
    assert found.warnings == (f"other users of this machine can read {path}: run chmod 600 '{path}'",)


def test_an_unusable_address_is_traced_to_its_file_or_variable(tmp_path: Path) -> None:
    path = tmp_path / "hotkey"
    path.write_text(json.dumps({"secretSeed": TEST_SEED, "ss58Address": HOTKEY[:-1]}))
    errors = find_credentials([path], {"MINER_SEED": TEST_SEED, "MINER_SS58": f'"{HOTKEY}"'}).errors
    assert errors[0].startswith(f"--hotkey-file: {path}: '{HOTKEY[:-1]}' is not an SS58 address")
    assert errors[1].startswith(
        "MINER_SEED and MINER_SS58: the value (not shown, 50 characters) is not an SS58 address"
    )


def test_without_any_address_to_listen_on_nothing_starts() -> None:
    with pytest.raises(ConfigError, match=r"--web\.listen-address is empty"):
        make_settings(listen=[])


def test_a_seed_in_a_wrong_place_is_not_shown() -> None:
    (error,) = find_credentials([Path(f'"{TEST_SEED}"')], {}).errors
    assert TEST_SEED[2:] not in error
    with pytest.raises(ConfigError) as refusal:
        make_settings(ttl=[TEST_SEED])
    assert TEST_SEED[2:] not in str(refusal.value)


def test_the_freshness_of_single_feeds_can_be_set() -> None:
    settings = make_settings(ttl=["scores=10", "chutes=9000"], max_age=["scores=20"])
    tuned = {feed.name: settings.tuned(feed) for feed in (SCORES, CHUTES, STATS)}
    bounds = {name: (feed.ttl, feed.max_age) for name, feed in tuned.items()}
    assert bounds == {"scores": (10, 20), "chutes": (9000, 9000), "stats": (STATS.ttl, STATS.max_age)}


@pytest.mark.parametrize("text", ["", "scores", "scores=", "scores=x", "scores=-1", "scores=inf", "nothing=1"])
def test_an_invalid_ttl_or_max_age_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="FEED=SECONDS"):
        make_settings(ttl=[text])
    with pytest.raises(ConfigError, match="FEED=SECONDS"):
        make_settings(max_age=[text])


def test_an_answer_cannot_be_dropped_while_it_is_fresh() -> None:
    with pytest.raises(ConfigError, match="less than the feed's time to live"):
        make_settings(max_age=["scores=5"])


def test_a_trailing_slash_does_not_matter() -> None:
    assert make_settings(api_url="https://x/y/").api_url == "https://x/y"


@pytest.mark.parametrize(
    "path",
    ["//x/y", "/a//b", "/a/../b", "/a/.", "", "metrics", "/", "/-/healthy", "/-/ready", "/{x:path}", "/a b", "/a?b"],
)
def test_the_metrics_need_a_path_of_their_own(path: str) -> None:
    with pytest.raises(ConfigError, match="path of the metrics"):
        make_settings(telemetry_path=path)


_KNOWN = {
    f"CHUTES_EXPORTER_{name}" for name in ("HOTKEY", "HOTKEY_FILE", "MINERS", "SIMULATOR_SEED", "WEB_LISTEN_ADDRESS")
} | {"HOTKEY", "VALIDATOR_API"}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CHUTES_EXPORTER_HOTKEYS": "x"}, "the nearest name is CHUTES_EXPORTER_HOTKEY"),
        ({"CHUTES_EXPORTER_ZZZ_QQQ_XXX_JJJ_VVV_KKK_YYY": "x"}, "--help lists all variables"),
        ({"CHUTES_EXPORTER_HOTKEY": " "}, "CHUTES_EXPORTER_HOTKEY is empty"),
        ({"CHUTES_EXPORTER_MINER_SS58": "x"}, "set CHUTES_EXPORTER_HOTKEY instead"),
        ({"CHUTES_EXPORTER_SIMULATION_SEED": "x"}, "the nearest name is"),
        ({"CHUTES_EXPORTER_SEED": "x"}, "set MINER_SEED and MINER_SS58 instead"),
        (
            {"chutes_exporter_hotkey": "x"},
            "chutes_exporter_hotkey is unknown and has no effect: the nearest name is CHUTES",
        ),
        ({"CHUTES_EXPORTER_LISTEN": "x"}, "the nearest name is CHUTES_EXPORTER_WEB_LISTEN_ADDRESS"),
        ({"CHUTES_EXPORTER_DEBUG": "x"}, "--help lists all variables"),
        ({"CHUTES_EXPORTER_PORT": "9000"}, "CHUTES_EXPORTER_PORT is unknown"),
        ({"CHUTES_EXPORTER_X\nY": "9000"}, "CHUTES_EXPORTER_X\\nY is unknown"),
    ],
)
def test_a_variable_without_an_effect_causes_a_warning(environment: dict[str, str], words: str) -> None:
    (warning,) = variable_warnings(environment, _KNOWN)
    assert words in warning


def test_known_variables_and_those_of_kubernetes_cause_no_warning() -> None:
    environment = {
        "CHUTES_EXPORTER_HOTKEY": HOTKEY,
        "CHUTES_EXPORTER_SERVICE_HOST": "10.0.0.1",
        "CHUTES_EXPORTER_SERVICE_PORT_HTTP": "10064",
        "CHUTES_EXPORTER_PORT": "tcp://10.0.0.1:10064",
        "CHUTES_EXPORTER_PORT_10064_TCP_ADDR": "10.0.0.1",
        "CHUTES_EXPORTER_TEST_DEEP": "1",
        "OTHER": "x",
    }
    assert variable_warnings(environment, {"CHUTES_EXPORTER_HOTKEY"}) == ()


def test_a_malformed_hotkey_is_refused() -> None:
    with pytest.raises(ConfigError, match="not an SS58 address"):
        make_settings(hotkeys=["nonsense"])


def test_all_configured_hotkeys_are_watched() -> None:
    assert make_settings().miners == "all"
    assert make_settings(hotkeys=[HOTKEY]).watched == {HOTKEY}
    assert make_settings(miner_ss58=HOTKEY).watched == {HOTKEY}
    settings = make_settings(hotkeys=[OTHER], credentials=WITH_KEY)
    assert settings.watched == {HOTKEY, OTHER}
    assert settings.keys == (KEY,)
    assert settings.miners == "watched"
    assert make_settings(hotkeys=[OTHER], miners="active").miners == "active"


def test_miners_watched_without_a_hotkey_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a watched miner: add --hotkey"):
        make_settings(miners="watched")


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://api.example", True),
        ("HTTP://api.example", True),
        ("http://10.0.0.1", True),
        ("http://localhost:1", False),
        ("http://[::1]:1", False),
        ("http://127.0.0.1:1", False),
        ("https://api.example", False),
    ],
)
def test_signing_without_encryption_causes_a_warning(url: str, warned: bool) -> None:  # noqa: FBT001
    assert bool(make_settings(api_url=url, credentials=WITH_KEY).warnings) is warned
    assert not make_settings(api_url=url).warnings
    assert make_settings(api_url=url).api_url == url.lower()


def test_the_environments_seed_is_found() -> None:
    found = find_credentials([], {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY})
    assert [key.address for key in found.keys] == [HOTKEY]
    assert find_credentials([], {"MINER_SS58": HOTKEY}) == Credentials((), (), ())


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"MINER_SEED": TEST_SEED}, "without MINER_SS58"),
        ({"MINER_SEED": TEST_SEED, "MINER_SS58": OTHER}, "does not belong"),
        ({"MINER_SEED": "0x12", "MINER_SS58": HOTKEY}, "64 hexadecimal"),
    ],
)
def test_a_wrong_seed_in_the_environment_is_refused_with_the_reason(environment: dict[str, str], reason: str) -> None:
    found = find_credentials([], environment)
    assert reason in found.errors[0]
    assert TEST_SEED[2:] not in found.errors[0]
    with pytest.raises(ConfigError, match=reason):
        make_settings(credentials=found)


def test_hotkey_files_that_others_can_read_cause_warnings(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o600)
    assert find_credentials([path, path], {}).warnings == ()
    path.chmod(0o644)
    found = find_credentials([path, tmp_path / "missing"], {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY})
    assert [key.address for key in found.keys] == [HOTKEY]
    assert "chmod 600" in found.warnings[0]
    assert "missing" in found.errors[0]


def test_errors_and_warnings_about_hotkey_files_are_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "hot\nkey"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o644)
    found = find_credentials([path, tmp_path / "cold\nkey"], {})
    assert found.warnings == (
        rf"other users of this machine can read {tmp_path}/hot\nkey: run chmod 600 '{tmp_path}/hot\nkey'",
    )
    assert found.errors == (
        (
            rf"--hotkey-file: cannot read the hotkey file {tmp_path}/cold\nkey: No such file or directory. "
            "Check the path and its permissions"
        ),
    )
