"""The states in the life of a server."""

from enum import Enum

__all__ = ["State"]


class State(Enum):
    """A state of the server. It moves forward only, and decides whether new calls are taken."""

    STARTING = "starting"
    SERVING = "serving"
    # Health says NOT_SERVING, but callers that do not know yet are still answered.
    DRAINING = "draining"
    # Calls in flight finish, new ones are refused.
    STOPPING = "stopping"

    @property
    def takes_calls(self) -> bool:
        """Whether new calls are answered in this state."""
        return self in (State.SERVING, State.DRAINING)
