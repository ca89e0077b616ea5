"""MLServer: gRPC with raw contents, its own adaptive batching, inference in the process that takes the calls.

Rows are elements of the type BYTES, which it passes through as they are; UINT8 it would unpack to a list of
numbers.
"""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from bench.serving.peers.encoder import Encoder


class EncoderModel(MLModel):
    """The model of the server."""

    async def load(self) -> bool:
        """Load the encoder."""
        self._encoder = Encoder()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Encode a batch of calls, which MLServer has merged into one."""
        rows = payload.inputs[0].data.root
        (means,) = self._encoder.encode([b"".join(rows)])
        size = len(means) // len(rows)
        data = [means[start : start + size] for start in range(0, len(means), size)]
        output = ResponseOutput(name="mean", shape=[len(rows), 1], datatype="BYTES", data=data)
        return InferenceResponse(model_name=self.name, outputs=[output])
