"""Addresses: ports, Unix sockets, and what is neither."""

import pytest

from convvae_service.errors import StartupError
from convvae_service.settings.addresses import socket_path
from convvae_service.settings.loader import load_settings

MODELS = ["--models", "models"]


def refusal(*flags: str) -> str:
    with pytest.raises(StartupError) as caught:
        load_settings([*MODELS, *flags])
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:/run/convvae.sock", "/run/convvae.sock"),
        ("unix:///run/convvae.sock", "/run/convvae.sock"),
        ("unix:here.sock", "here.sock"),
        ("unix:./a/b-1_2.sock", "./a/b-1_2.sock"),
        ("127.0.0.1:50051", None),
        ("unix://run/convvae.sock", None),
        ("unix:", None),
        ("unix:/run/a b", None),
        ("unix:/run/a%20b", None),
        ("unix-abstract:x", None),
    ],
)
def test_the_path_of_a_socket(address: str, path: str | None) -> None:
    """GRPC's two forms are read, and nothing that gRPC would read in another way."""
    assert socket_path(address) == path


def test_addresses_are_given_one_by_one_or_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags repeat, and commas divide, in variables too."""
    wanted = ("127.0.0.1:1", "unix:/run/x.sock", "[::1]:2")
    words = ["--address", "127.0.0.1:1,unix:/run/x.sock", "--address", "[::1]:2"]
    assert load_settings([*MODELS, *words]).address == wanted
    monkeypatch.setenv("CONVVAE_SERVE_ADDRESS", ", ".join(wanted))
    assert load_settings(MODELS).address == wanted


@pytest.mark.parametrize("address", ["unix:", "unix://run/x", "unix:/run/a b", "unix:/run/a?b"])
def test_a_malformed_socket_is_refused(address: str) -> None:
    """The message has the form that is right."""
    assert refusal("--address", address) == (
        f"--address: {address!r} is not unix:PATH, as in unix:/run/convvae.sock: a path has letters, digits"
        " and / . _ ~ @ + = -"
    )


def test_what_cannot_be_listened_on_is_refused() -> None:
    """A path that the system would cut, an address twice, and none at all."""
    long = f"unix:/{'x' * 100}"
    assert refusal("--address", long).endswith("is too long: a socket's path has 100 characters at most")
    assert refusal("--address", "[::]:1,[::]:1") == "--address: [::]:1 is given twice"
    assert refusal("--address", ",") == "--address: names no address: give HOST:PORT or unix:PATH"
    assert refusal("--address", "unix-abstract:x").startswith("--address: 'unix-abstract:x' is not HOST:PORT")
    assert refusal("--metrics-address", "unix:/x") == (
        "--metrics-address: 'unix:/x' is not HOST:PORT, as in 127.0.0.1:50051"
    )


@pytest.mark.parametrize(("mode", "number"), [("660", 0o660), ("0600", 0o600), ("777", 0o777)])
def test_permissions_are_octal(mode: str, number: int) -> None:
    """They are written as `chmod` takes them."""
    assert load_settings([*MODELS, "--socket-mode", mode]).socket_permissions == number


@pytest.mark.parametrize("mode", ["66", "888", "rw", "01777"])
def test_other_permissions_are_refused(mode: str) -> None:
    """The message has an example."""
    assert refusal("--socket-mode", mode) == f"--socket-mode: {mode!r} is not permissions in octal, as in 660"
