"""The operation behind a batched call: the protocol, and the parsed reply to a part of its rows.

An operation builds and parses messages only. `convvae.calls.exchanges` splits the rows, and the clients send.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from numpy.typing import NDArray

from convvae.calls.replies import Served
from convvae.errors import InvalidInput
from convvae.results import ModelInfo
from convvae.v1 import vae_pb2

__all__ = ["FLOAT32_BYTES", "ChunkReply", "IndependentRows", "Operation", "UnnamedRows"]

R_co = TypeVar("R_co", covariant=True)

FLOAT32_BYTES = 4


class ChunkReply(NamedTuple):
    """The parsed reply to one chunk: an array per field with rows, and a constant per field without."""

    served: Served
    arrays: Mapping[str, NDArray[Any]]
    constants: Mapping[str, Any] = MappingProxyType({})


class Operation(Protocol[R_co]):
    """One batched operation on the caller's whole array."""

    @property
    def method(self) -> str:
        """Name of the RPC."""

    @property
    def answer(self) -> Callable[..., R_co]:
        """Class of the caller's result. Its fields are arrays, constants and the version that answered."""

    @property
    def rows(self) -> int:
        """Number of rows of the whole call."""

    @property
    def draws(self) -> int:
        """Number of rows that the server counts for each row."""

    @property
    def field(self) -> str:
        """Name of the rows in error messages."""

    def check(self, info: ModelInfo, /) -> None:
        """Raise `InvalidInput` if the arguments do not fit the model."""

    def named(self, error: InvalidInput, /) -> InvalidInput:
        """Return the error with the caller's names of the rows, such as paths."""

    def request_bytes(self, info: ModelInfo, /) -> int | Sequence[int]:
        """Return the bytes that a row adds to a request: one number for all rows, or one per row."""

    def reply_bytes(self, info: ModelInfo, /) -> int:
        """Return the bytes that a row adds to a reply."""

    def prepared(self, chunks: int, /) -> Self:
        """Return the operation to send in this number of chunks."""

    def request(self, model: vae_pb2.ModelRef, rows: range, info: ModelInfo, /) -> Any:
        """Build the request message for these rows."""

    def parse(self, reply: Any, rows: range, info: ModelInfo, /) -> ChunkReply:
        """Parse the reply to these rows.

        Raises:
            BadReply: The reply contradicts the contract.
        """


class UnnamedRows:
    """The base of operations whose rows have indices only."""

    def named(self, error: InvalidInput) -> InvalidInput:
        """Return the error itself."""
        return error


class IndependentRows(UnnamedRows):
    """The base of operations whose rows count once, and whose chunks need no common seed."""

    draws = 1

    def prepared(self, _chunks: int) -> Self:
        """Return the operation itself."""
        return self
