"""The configuration of a client: frozen, and checked when it is created."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from convvae.errors import InvalidInput
from convvae.model_name import ModelName

__all__ = ["COMPRESSIONS", "ClientConfig", "RetryConfig", "TLSConfig", "check_timeout"]

COMPRESSIONS = ("gzip",)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    """The rules for retries of a request.

    A request is retried after `UNAVAILABLE`, and after `RESOURCE_EXHAUSTED` with a retry delay. The n-th wait
    is drawn between 0 and the smaller of `max_backoff_s` and `backoff_s` x `multiplier`^n ("full jitter"),
    and added to the server's retry delay. All calls of a client share a budget of tokens. A retry takes one
    token, and each answered request returns `refill` tokens. So a client adds few requests to the load of a
    failing server. A server that refuses a request because it starts or stops costs no token.

    Attributes:
        retries: Maximum number of retries of one request. 0 turns them off.
        backoff_s: Upper bound of the first wait, in seconds.
        max_backoff_s: Upper bound of any drawn wait, in seconds.
        multiplier: Growth of the bound from one wait to the next, 1 to 100.
        budget: Maximum number of tokens in the budget, which is full at the start.
        refill: Tokens that an answered request returns.
    """

    retries: int = 5
    backoff_s: float = 0.1
    max_backoff_s: float = 5.0
    multiplier: float = 2.0
    budget: float = 20.0
    refill: float = 0.2

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InvalidInput(f"retries is {self.retries}; it must be at least 0")
        for name in ("backoff_s", "max_backoff_s", "budget", "refill"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInput(f"{name} is {value}; it must be finite and at least 0")
        if not 1 <= self.multiplier <= 100:
            raise InvalidInput(f"multiplier is {self.multiplier}; it must be 1 to 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class TLSConfig:
    """The encryption of the connection. All certificates and keys are PEM bytes.

    Attributes:
        root_certificates: Authorities to trust. None trusts those that gRPC includes.
        certificate_chain: The client's own certificate, for servers that require one.
        private_key: Key of the client's own certificate.
        server_name: Name in the server's certificate, if it differs from the target's host.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise InvalidInput("certificate_chain and private_key belong together: give both or neither")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """The settings of both clients. `Client` describes each of them."""

    target: str
    model: str = ""
    timeout_s: float = 30.0
    max_in_flight: int = 4
    retry: RetryConfig = RetryConfig()
    tls: TLSConfig | None = None
    token: str | None = field(default=None, repr=False)
    allow_insecure_token: bool = False
    compression: str | None = None
    follow_health: bool = False
    coalesce: bool = False

    def __post_init__(self) -> None:
        if not self.target:
            raise InvalidInput("target is empty; give HOST:PORT, such as 'localhost:50051'")
        ModelName.parse(self.model)
        check_timeout(self.timeout_s)
        if self.max_in_flight < 1:
            raise InvalidInput(f"max_in_flight is {self.max_in_flight}; it must be at least 1")
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise InvalidInput(
                f"compression is {self.compression!r}; it must be one of {COMPRESSIONS} or None"
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings as keyword arguments of a client."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self)}


def check_timeout(timeout_s: float) -> float:
    """Return `timeout_s`, or raise `InvalidInput` unless it is a finite number of seconds above 0."""
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise InvalidInput(f"timeout_s is {timeout_s}; it must be finite and above 0")
    return timeout_s
