"""Whether a failed request is repeated, and when."""

import random
import threading
from collections.abc import Callable

from convvae.config import RetryConfig
from convvae.errors import ConvvaeError, Overloaded, Unavailable

__all__ = ["RETRYABLE", "RetryPolicy"]

# Every request is safe to repeat, but a deadline leaves no time and an internal error comes again.
RETRYABLE = (Overloaded, Unavailable)


class RetryPolicy:
    """The retries of one client: decides, and keeps the budget that its calls share. Thread-safe."""

    def __init__(self, config: RetryConfig, *, draw: Callable[[], float] = random.random) -> None:
        """Start with a full budget.

        Args:
            config: The rules.
            draw: Returns numbers uniform in [0, 1).
        """
        self._config = config
        self._draw = draw
        self._tokens = config.budget
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        """What is left of the budget."""
        return self._tokens

    def answered(self) -> None:
        """Put back what an answered request is worth."""
        with self._lock:
            self._tokens = min(self._tokens + self._config.refill, self._config.budget)

    def wait_s(self, error: ConvvaeError, retries: int, remaining_s: float) -> float | None:
        """Return how long to wait before the next retry, or None not to retry.

        Args:
            error: What the request failed with.
            retries: How often it was already retried.
            remaining_s: Seconds that the call has left. A wait that would use them up is not begun.
        """
        if retries >= self._config.retries or not isinstance(error, RETRYABLE):
            return None
        # 100^64 is the largest that the configuration admits, far from where a float overflows.
        growth = self._config.multiplier ** min(retries, 64)
        bound = min(self._config.max_backoff_s, self._config.backoff_s * growth)
        wait = (error.retry_delay_s or 0.0) + self._draw() * bound
        if wait >= remaining_s:
            return None
        with self._lock:
            if self._tokens < 1:
                return None
            self._tokens -= 1
        return wait
