from typing import Any

import pytest

from convvae import AsyncClient, Client, InvalidInput, TLSConfig
from convvae.addresses import first_of_several, is_loopback


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "LOCALHOST",
        "127.0.0.1:1",
        "127.8.8.8",
        "[::1]:50051",
        "::1",
        "dns:///localhost:5",
        "dns:localhost:5",
        "ipv4:127.0.0.1:5,127.0.0.2:5",
        "ipv6:[::1]:5",
        "unix:/run/x.sock",
        "unix:///run/x.sock",
        "unix-abstract:x",
    ],
)
def test_loopback_targets(target: str) -> None:
    """Targets that are certain to be this machine are recognised."""
    assert is_loopback(target)


@pytest.mark.parametrize(
    "target",
    [
        "example.org:50051",
        "10.0.0.1:5",
        "localhost.example.org:5",
        "ipv4:127.0.0.1:5,10.0.0.1:5",
        "dns:///vae:5",
        "[2001:db8::1]:5",
        "xds:///localhost",
        "0.0.0.0:5",
        "127.0.0.1.example.org:5",
    ],
)
def test_other_targets(target: str) -> None:
    """Everything else may be another machine."""
    assert not is_loopback(target)


@pytest.mark.parametrize(
    ("target", "first"),
    [
        ("ipv4:127.0.0.1:5,127.0.0.2:6", "127.0.0.1:5"),
        ("ipv6:[::1]:5,[::2]:5", "[::1]:5"),
        ("ipv4:///127.0.0.1:5,127.0.0.2:6", "127.0.0.1:5"),
        ("ipv4:127.0.0.1:5", None),
        ("dns:///vae:5", None),
        ("localhost:5", None),
        ("unix:/run/a,b.sock", None),
    ],
)
def test_lists_of_addresses(target: str, first: str | None) -> None:
    """The first address of a list stands for all; other targets have one name already."""
    assert first_of_several(target) == first


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_token_does_not_travel_in_plain_text(client: type[Client]) -> None:
    """A token for another machine needs TLS or a flag, and never appears in the error."""
    with pytest.raises(InvalidInput, match="the token would travel unencrypted to vae:5") as caught:
        client("vae:5", token="s3cret")
    assert "s3cret" not in str(caught.value)


def test_token_travels_where_it_may() -> None:
    """A token is accepted with TLS, on the loopback, and with the flag."""
    Client("vae:5", token="s3cret", tls=TLSConfig()).close()
    Client("vae:5", token="s3cret", allow_insecure_token=True).close()
    Client("localhost:5", token="s3cret").close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"max_in_flight": 0}, "max_in_flight is 0"),
        ({"compression": "zip"}, "compression is 'zip'"),
        ({"model": "m@0"}, "model is 'm@0'"),
    ],
)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_settings_out_of_range_are_refused(
    client: type[Client], settings: dict[str, Any], message: str
) -> None:
    """A client with invalid settings is refused."""
    with pytest.raises(InvalidInput, match=message):
        client("localhost:5", **settings)
    with pytest.raises(InvalidInput, match="target is empty"):
        client("")


def test_certificate_and_key_belong_together() -> None:
    """A certificate without its key is refused; a key is not shown."""
    with pytest.raises(InvalidInput, match="belong together"):
        TLSConfig(certificate_chain=b"x")
    assert "secret" not in repr(TLSConfig(certificate_chain=b"x", private_key=b"secret"))
