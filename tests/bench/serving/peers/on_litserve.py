"""LitServe: raw bytes over HTTP, its own batching, one worker and one API server."""

from typing import Annotated

import litserve
from fastapi import Depends, Request, Response

from bench.serving.peers.encoder import CALLERS, Encoder, port


async def body_of(request: Request) -> bytes:
    """Return the body as it is; without this LitServe would parse JSON."""
    return await request.body()


class EncoderAPI(litserve.LitAPI):
    """The process that encodes batches of calls."""

    def setup(self, device: str) -> None:
        """Load the encoder."""
        del device
        self._encoder = Encoder()

    def decode_request(self, request: Annotated[bytes, Depends(body_of)]) -> bytes:
        """Leave the body as it is."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Leave the calls as they are."""
        return inputs

    def predict(self, x: list[bytes]) -> list[bytes]:
        """Encode a batch of calls."""
        return self._encoder.encode(x)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Leave the results as they are."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Return the result as it is."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    api = EncoderAPI(max_batch_size=CALLERS, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=30)
    server.run(
        host="127.0.0.1", port=port(), num_api_servers=1, log_level="warning", generate_client_file=False
    )
