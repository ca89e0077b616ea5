"""Standard health (`grpc.health.v1`): overall, per service and model, and a liveness that a drain keeps."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

__all__ = ["LIVENESS", "Health"]

LIVENESS = "liveness"
_SERVING, _NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Health(HealthServicer):  # type: ignore[misc]
    """Check and Watch. Every name but `liveness` starts as NOT_SERVING.

    Args:
        services: Names that are ready as soon as a model is; the overall, empty one is among them unasked.
        models: The models so far.
    """

    def __init__(self, services: Iterable[str], models: Iterable[str]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._models = set(models)
        self._closing = asyncio.Event()
        self._alive = True
        self._server_status = dict.fromkeys((*self._services, *self._models), _NOT_SERVING)
        self._server_status[LIVENESS] = _SERVING

    async def follow(self, models: Mapping[str, bool]) -> None:
        """Report each model as ready or not, and the services as ready if one is.

        A model that is no longer among them is unknown: Watch says SERVICE_UNKNOWN, Check NOT_FOUND.
        """
        # A folder that is called like a service must not hide how the service is.
        services = {**dict.fromkeys(self._services, any(models.values())), LIVENESS: self._alive}
        for name, ready in {**models, **services}.items():
            if self._server_status.get(name) != (status := _SERVING if ready else _NOT_SERVING):
                await self.set(name, status)
        for name in self._models - models.keys() - services.keys():
            await self.set(name, _UNKNOWN)
            del self._server_status[name]
        self._models = set(models)

    async def set_unready(self) -> None:
        """Report everything but `liveness` as NOT_SERVING."""
        await self.follow(dict.fromkeys(self._models, False))

    async def set_alive(self, alive: bool) -> None:
        """Report `liveness`: whether the server itself still moves."""
        if alive is not self._alive:
            self._alive = alive
            await self.set(LIVENESS, _SERVING if alive else _NOT_SERVING)

    @property
    def alive(self) -> bool:
        """Whether `liveness` is SERVING."""
        return self._alive

    @property
    def ready(self) -> bool:
        """Whether the overall name is SERVING."""
        return bool(self._server_status[""] == _SERVING)

    def end_watches(self) -> None:
        """End all streams of Watch, which would otherwise keep a stopping server to the end of its grace."""
        self._closing.set()

    async def Watch(self, request: HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Report a name's state and every change of it, until the caller leaves or the server stops."""
        watch = asyncio.ensure_future(super().Watch(request, context))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((watch, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            closing.cancel()
