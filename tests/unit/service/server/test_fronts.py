"""Which front reads the calls, and what it says when a setting needs the other one."""

import errno
import os
import sys
from pathlib import Path

import pytest

from convvae_service.errors import StartupError
from convvae_service.server.assembly import assemble
from convvae_service.server.fronts import FrontChoice, choose_front
from convvae_service.settings.loader import load_settings

LACKS = [
    (
        ["--tls-certificate", "a.pem", "--tls-key", "a.key"],
        "--tls-certificate needs --front grpcio: the native front has no TLS",
    ),
    (
        ["--max-connections", "1000"],
        "--max-connections needs --front grpcio: the native front has no limit on connections",
    ),
    (
        ["--min-ping-interval-s", "10"],
        "--min-ping-interval-s needs --front grpcio: the native front has no limit on the pings of callers",
    ),
    (
        ["--max-connection-age-s", "60"],
        "--max-connection-age-s needs --front grpcio: the native front has no age of connections",
    ),
]
MISSING = "the native front needs pygrpc-native ("


def choose(*flags: str) -> FrontChoice:
    return choose_front(load_settings(["--models", "unused", *flags]))


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)


@pytest.mark.parametrize(("flags", "reason"), LACKS, ids=[flags[0] for flags, _ in LACKS])
def test_a_setting_that_native_cannot_keep_needs_grpcio(flags: list[str], reason: str) -> None:
    """`auto` takes grpcio and says why; `native` is refused with the same words."""
    assert choose(*flags) == FrontChoice("grpcio", reason)
    with pytest.raises(StartupError) as refused:
        choose("--front", "native", *flags)
    assert str(refused.value) == reason
    assert choose("--front", "grpcio", *flags) == FrontChoice("grpcio", "--front grpcio")


def test_settings_of_variables_and_files_count_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It does not matter where a limit comes from."""
    monkeypatch.setenv("CONVVAE_SERVE_MAX_CONNECTIONS", "5")
    assert choose().name == "grpcio"
    monkeypatch.delenv("CONVVAE_SERVE_MAX_CONNECTIONS")
    file = tmp_path / "serve.toml"
    file.write_text('max_connections = 5\nfront = "native"\n')
    with pytest.raises(StartupError, match="--max-connections needs --front grpcio"):
        choose("--config", str(file))


def test_native_is_chosen_where_no_setting_needs_grpcio() -> None:
    """No limit is what native has, so asking for none changes nothing."""
    assert choose() == FrontChoice("native", "no setting needs --front grpcio")
    assert choose("--max-connections", "0", "--max-connection-age-s", "0").name == "native"
    assert choose("--front", "native") == FrontChoice("native", "--front native")


@pytest.mark.usefixtures("no_wheel")
def test_a_missing_wheel_is_named(tmp_path: Path) -> None:
    """`auto` serves without it; `native` says what to install, before anything is loaded."""
    choice = choose()
    assert choice.name == "grpcio"
    assert choice.reason.startswith(MISSING)
    assert choice.reason.endswith("): pip install 'convvae[native]'")
    with pytest.raises(StartupError) as refused:
        assemble(load_settings(["--models", str(tmp_path / "none"), "--front", "native"]))
    assert str(refused.value) == choice.reason


@pytest.mark.parametrize(
    ("address", "chosen"),
    [
        ("localhost:50051", "native"),
        ("[::1]:50051", "native"),
        ("127.0.0.2:0", "native"),
        ("0.0.0.0:50051", "grpcio"),
        ("[::]:50051", "grpcio"),
        ("192.0.2.1:50051", "grpcio"),
        ("localhost.example:50051", "grpcio"),
    ],
)
def test_auto_takes_native_on_loopback_only(address: str, chosen: str) -> None:
    """Any machine may call elsewhere: there the native front must be named."""
    choice = choose("--address", address)
    assert choice.name == chosen
    if chosen == "grpcio":
        assert choice.reason == f"callers at {address} are not known; --front native trusts them"
    assert choose("--address", address, "--front", "native").name == "native"


def test_tokens_make_auto_take_grpcio(tmp_path: Path) -> None:
    """Strangers could send requests of any size: the native front serves tokens only if it is named."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    choice = choose("--token-file", str(tokens))
    assert choice.name == "grpcio"
    assert choice.reason.startswith("--token-file: the native front reads a request of any size")
    assert choose("--token-file", str(tokens), "--front", "native").name == "native"


def test_little_memory_makes_auto_take_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where 4 GiB cannot be reserved, one call that states such a length would end a native server."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("convvae_service.server.fronts.mmap.mmap", refuse)
    reason = "this system cannot reserve the 4 GiB that the native front may need for one message"
    assert choose() == FrontChoice("grpcio", reason)
    assert choose("--front", "native").name == "native"


def test_an_unknown_front_is_refused() -> None:
    """The three names are in the message."""
    with pytest.raises(StartupError, match="auto, native or grpcio"):
        choose("--front", "nginx")
