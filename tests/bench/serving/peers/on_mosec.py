"""mosec: raw bytes over HTTP, its own dynamic batching, one worker."""

from mosec import Server, Worker

from bench.serving.peers.encoder import CALLERS, Encoder


class EncoderWorker(Worker):
    """One process that encodes batches of calls."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = Encoder()

    def deserialize(self, data: bytes) -> bytes:
        """Leave the body as it is."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Leave the result as it is."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """Encode a batch of calls."""
        return self._encoder.encode(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(EncoderWorker, num=1, max_batch_size=CALLERS, max_wait_time=1)
    server.run()
