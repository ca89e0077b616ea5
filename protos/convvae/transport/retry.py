"""The decision whether a failed request is retried, and after which wait."""

import random
import threading
from collections.abc import Callable

from convvae.config import RetryConfig
from convvae.errors import ConvvaeError, Overloaded, Unavailable

__all__ = ["RETRYABLE", "RetryPolicy"]

# Every request is safe to repeat. But after a deadline no time is left, and an internal error would repeat.
RETRYABLE = (Overloaded, Unavailable)


class RetryPolicy:
    """The retry rules and the retry budget of one client. Thread-safe."""

    def __init__(self, config: RetryConfig, *, draw: Callable[[], float] = random.random) -> None:
        """Start with a full budget.

        Args:
            config: The retry rules.
            draw: Returns uniform random numbers in [0, 1).
        """
        self._config = config
        self._draw = draw
        self._tokens = config.budget
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        """Number of tokens left in the budget."""
        return self._tokens

    def answered(self) -> None:
        """Return the tokens of one answered request to the budget."""
        with self._lock:
            self._tokens = min(self._tokens + self._config.refill, self._config.budget)

    def wait_s(self, error: ConvvaeError, retries: int, remaining_s: float) -> float | None:
        """Return the seconds to wait before the next retry, or None if there is none.

        Args:
            error: The error of the request.
            retries: Number of retries so far.
            remaining_s: Seconds left for the request. There is no retry if the wait would use them up.
        """
        if retries >= self._config.retries or not isinstance(error, RETRYABLE):
            return None
        # At most 100^64 with the configuration's limits, which a float can represent.
        growth = self._config.multiplier ** min(retries, 64)
        bound = min(self._config.max_backoff_s, self._config.backoff_s * growth)
        wait = (error.retry_delay_s or 0.0) + self._draw() * bound
        if wait >= remaining_s:
            return None
        if isinstance(error, Unavailable) and error.request_id:
            # A server that starts or stops has said so itself: it is not failing, and another one may serve.
            return wait
        with self._lock:
            if self._tokens < 1:
                return None
            self._tokens -= 1
        return wait
