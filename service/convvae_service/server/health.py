"""Standard health (`grpc.health.v1`): overall, for each service and model, and a liveness."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from convvae_service.server.grpc_context import Context

__all__ = ["LIVENESS", "HealthServicer"]

LIVENESS = "liveness"
_SERVING, _NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN
# Watch streams at the same time, for all callers and for those of one address.
_MAX_WATCHES = 1000
_MAX_WATCHES_OF_ADDRESS = 250
# Names in one answer of List, which then has about 100 KB.
_MAX_LISTED = 1000
# No service or model has a longer name. Each watch keeps its name.
_MAX_NAME_LENGTH = 1024


class HealthServicer:
    """Answers Check, List and Watch. Every name except `liveness` starts as NOT_SERVING.

    A change takes effect at once, and slow watchers cannot delay it: each is told as soon as it reads. (In
    grpcio-health-checking, a watcher that reads nothing holds a lock that every later change needs.)

    Args:
        services: Names that are ready as soon as one model is. The empty, overall name is always one of them.
        models: The models that are known now.
    """

    def __init__(self, services: Iterable[str], models: Iterable[str]) -> None:
        self._services = ("", *services)
        self._models = set(models)
        self._alive = True
        self._statuses = dict.fromkeys((*self._services, *self._models), _NOT_SERVING)
        self._statuses[LIVENESS] = _SERVING
        self._changed: dict[asyncio.Event, str] = {}
        self._watches_of: Counter[str] = Counter()
        self._ended = False

    def follow(self, models: Mapping[str, bool]) -> None:
        """Report each model as ready or not, and the services as ready if one model is.

        A model that is not in `models` becomes unknown: Watch says SERVICE_UNKNOWN, Check NOT_FOUND.
        """
        # A model with the name of a service must not hide the state of the service.
        services = {**dict.fromkeys(self._services, any(models.values())), LIVENESS: self._alive}
        for name, ready in {**models, **services}.items():
            self._set(name, _SERVING if ready else _NOT_SERVING)
        for name in self._models - models.keys() - services.keys():
            self._set(name, None)
        self._models = set(models)

    def set_unready(self) -> None:
        """Report every name except `liveness` as NOT_SERVING."""
        self.follow(dict.fromkeys(self._models, False))

    def set_alive(self, alive: bool) -> None:
        """Report `liveness`: whether the server itself works."""
        self._alive = alive
        self._set(LIVENESS, _SERVING if alive else _NOT_SERVING)

    @property
    def ready(self) -> bool:
        """Whether the overall name is SERVING."""
        return bool(self._statuses[""] == _SERVING)

    def end_watches(self) -> None:
        """End all Watch streams, except those whose callers do not read: the stop of the front ends them."""
        self._ended = True
        for changed in self._changed:
            changed.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Return the state of a name."""
        if (status := self._statuses.get(request.service)) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Context) -> Any:
        """Return the state of each name (gRFC A90). Very many names are RESOURCE_EXHAUSTED.

        Older releases of grpcio-health-checking have no messages for it: with them, it is UNIMPLEMENTED.
        """
        del request
        if len(self._statuses) > _MAX_LISTED:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the server has {len(self._statuses)} names of health, and List has {_MAX_LISTED} at most:"
                " use Check",
            )
        return health_pb2.HealthListResponse(
            statuses={name: HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        )

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """Send the state of a name, and each change, until the caller leaves or the server stops.

        A watcher that reads slowly gets the latest state, and not each state before it. A name that is too
        long is INVALID_ARGUMENT, and a watch beyond the limits is RESOURCE_EXHAUSTED.
        """
        name = request.service
        del request
        if len(name) > _MAX_NAME_LENGTH:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"service: a name has at most {_MAX_NAME_LENGTH} characters"
            )
        address = context.peer().rpartition(":")[0]
        if not self._may_watch(address):
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a server has at most {_MAX_WATCHES} watches, {_MAX_WATCHES_OF_ADDRESS} of them from one"
                " address: end others, or use Check",
            )
        self._watches_of[address] += 1
        changed = asyncio.Event()
        self._changed[changed] = name
        sent = None
        try:
            while not self._ended:
                changed.clear()
                if (status := self._statuses.get(name, _UNKNOWN)) != sent:
                    await context.write(HealthCheckResponse(status=status))
                    sent = status
                else:
                    await changed.wait()
        finally:
            del self._changed[changed]
            self._watches_of[address] -= 1
            # Otherwise it would keep every address for good.
            self._watches_of += Counter()

    def _may_watch(self, address: str) -> bool:
        # Behind another front all callers have the same address.
        of_address = 0 if address.startswith("unix") else self._watches_of[address]
        return len(self._changed) < _MAX_WATCHES and of_address < _MAX_WATCHES_OF_ADDRESS

    def _set(self, name: str, status: HealthCheckResponse.ServingStatus.ValueType | None) -> None:
        if self._statuses.get(name) == status:
            return
        if status is None:
            del self._statuses[name]
        else:
            self._statuses[name] = status
        for changed, watched in self._changed.items():
            if watched == name:
                changed.set()
