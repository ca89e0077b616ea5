"""The client of convvae servers: `Client` and `AsyncClient`, their results and their errors.

Each name is loaded on first use, so that a server can import the stubs of this package without the client.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convvae.aio import AsyncClient
    from convvae.client import Client
    from convvae.config import RetryConfig, TLSConfig
    from convvae.errors import (
        Aborted,
        AccessDenied,
        BadReply,
        Cancelled,
        ClientClosed,
        ConvvaeError,
        DeadlineExceeded,
        ForkedDuringUse,
        InvalidInput,
        MessageTooLarge,
        NotFound,
        NotPossible,
        Overloaded,
        ServerFault,
        TryLater,
        Unavailable,
        Unimplemented,
        VersionGone,
        Violation,
    )
    from convvae.results import (
        Answer,
        Decoded,
        Encoded,
        Health,
        ImageAnswer,
        Likelihood,
        Limits,
        ModelInfo,
        ModelSummary,
        Reconstructed,
        Sampled,
        Scored,
        VersionSummary,
    )

    __version__: str

__all__ = [
    "Aborted",
    "AccessDenied",
    "Answer",
    "AsyncClient",
    "BadReply",
    "Cancelled",
    "Client",
    "ClientClosed",
    "ConvvaeError",
    "DeadlineExceeded",
    "Decoded",
    "Encoded",
    "ForkedDuringUse",
    "Health",
    "ImageAnswer",
    "InvalidInput",
    "Likelihood",
    "Limits",
    "MessageTooLarge",
    "ModelInfo",
    "ModelSummary",
    "NotFound",
    "NotPossible",
    "Overloaded",
    "Reconstructed",
    "RetryConfig",
    "Sampled",
    "Scored",
    "ServerFault",
    "TLSConfig",
    "TryLater",
    "Unavailable",
    "Unimplemented",
    "VersionGone",
    "VersionSummary",
    "Violation",
    "__version__",
]

_MODULES = ("convvae.errors", "convvae.config", "convvae.results", "convvae.client", "convvae.aio")

# gRPC reads this when it is imported. It can restart its threads in a forked process. But a fork beside calls
# in flight then loses calls of the parent, and ends children by a signal. See `convvae.transport.forks`.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value = import_module("convvae.version").distribution_version()
        elif name in __all__:
            # The modules are tried from the lightest to the heaviest.
            module = next(m for m in map(import_module, _MODULES) if name in m.__all__)
            value = getattr(module, name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
