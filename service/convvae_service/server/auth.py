"""Bearer tokens: who may call. Health stays open, so that probes need no secret."""

import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from convvae_service.calls.runner import CallRunner, Context
from convvae_service.errors import StartupError, Unauthenticated
from convvae_service.server.watched_file import WatchedFile

__all__ = ["TokenInterceptor", "Tokens"]

_HEALTH = "/grpc.health.v1.Health/"
_SCHEME = "bearer "


class Tokens:
    """The tokens of a file, one a line; empty lines and lines that start with `#` are left out.

    The file is read again when it changes. A change that leaves no token, or no file, is logged and not
    followed.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            StartupError: It cannot be read, or holds no token.
        """
        self._file = WatchedFile((path,), _parse)
        try:
            self._file.load()
        except (OSError, ValueError) as error:
            raise StartupError(
                f"token file {str(path)!r}: {getattr(error, 'strerror', None) or error}"
            ) from None

    def accept(self, authorization: str) -> bool:
        """Tell whether the value of an `authorization` header holds one of the tokens."""
        given = authorization[len(_SCHEME) :].strip() if authorization.lower().startswith(_SCHEME) else ""
        # All are compared, in constant time each: the time tells nothing of which was nearly right.
        matches = [hmac.compare_digest(given.encode(), token) for token in self._file.current()]
        return any(matches)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without a token, those of reflection too; calls of health pass."""

    def __init__(self, tokens: Tokens, runner: CallRunner) -> None:
        self._tokens = tokens
        self._runner = runner

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the call's handler, or one that refuses it."""
        handler = await continuation(details)
        if handler is None or str(details.method).startswith(_HEALTH):
            return handler
        metadata = dict(details.invocation_metadata or ())
        authorization = metadata.get("authorization", "")
        if isinstance(authorization, str) and self._tokens.accept(authorization):
            return handler
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]

        method = str(details.method).rpartition("/")[2]

        async def refuse(request: object, context: Context) -> None:
            del request
            self._runner.drop_if_expired(method, context)
            error = Unauthenticated("a valid bearer token is needed in the metadata key 'authorization'")
            await self._runner.refuse(method, error, context)

        return make(refuse, handler.request_deserializer, handler.response_serializer)


def _parse(contents: tuple[bytes, ...]) -> tuple[bytes, ...]:
    lines = [line.strip() for line in contents[0].splitlines()]
    tokens = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not tokens:
        raise ValueError("holds no token: write one a line")
    return tokens
