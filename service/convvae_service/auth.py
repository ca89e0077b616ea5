"""Bearer tokens: who may call. Health stays open, so that probes need no secret."""

import hmac
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from convvae_service.answer import REQUEST_ID_KEY, request_id_of
from convvae_service.errors import StartupError, Unauthenticated
from convvae_service.logs import facts
from convvae_service.status import DETAILS_KEY, status_details
from convvae_service.watched_file import WatchedFile

__all__ = ["TokenInterceptor", "Tokens"]

_HEALTH = "/grpc.health.v1.Health/"
_SCHEME = "bearer "

_log = logging.getLogger(__name__)


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

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

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

        async def refuse(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
            del request
            error = Unauthenticated("a valid bearer token is needed in the metadata key 'authorization'")
            request_id = request_id_of(context)
            named = {"method": str(details.method).rpartition("/")[2], "code": error.status.name}
            _log.info("call", extra=facts(**named, request_id=request_id))
            trailing = ((REQUEST_ID_KEY, request_id), (DETAILS_KEY, status_details(error)))
            await context.abort(error.status, str(error), trailing)

        return make(refuse, handler.request_deserializer, handler.response_serializer)


def _parse(contents: tuple[bytes, ...]) -> tuple[bytes, ...]:
    lines = [line.strip() for line in contents[0].splitlines()]
    tokens = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not tokens:
        raise ValueError("holds no token: write one a line")
    return tokens
