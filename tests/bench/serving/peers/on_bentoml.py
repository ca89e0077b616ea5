"""BentoML: raw bytes over HTTP, one worker.

Its adaptive batching takes only JSON from outside, which costs more than it saves, so calls are not batched.
"""

import bentoml

from bench.serving.peers.encoder import Encoder


@bentoml.service(workers=1, traffic={"timeout": 30})
class EncoderService:
    """The process that encodes calls one by one."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    @bentoml.api(route="/encode")
    def encode(self, pixels: bytes, /) -> bytes:
        """Encode a call."""
        return self._encoder.encode([pixels])[0]
