"""Calls that carry given bytes, made by gRPC's own client."""

from typing import Any

import grpc

from attack.target import Outcome

__all__ = ["ENCODE", "MODEL_INFER", "OPTIONS", "SAMPLE", "STREAM_INFER", "send"]

ENCODE = "/convvae.v1.VaeService/Encode"
SAMPLE = "/convvae.v1.VaeService/Sample"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]
TIMEOUT_S = 20.0


def send(
    address: str,
    method: str,
    data: bytes,
    *,
    compression: grpc.Compression | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Make one call with these bytes as its message, on a connection of its own."""
    with grpc.insecure_channel(address, OPTIONS) as channel:
        outcome = Outcome(sent_bytes=len(data))
        # Without serialisers: the bytes go as they are.
        unary: Any = channel.unary_unary
        try:
            unary(method)(data, timeout=timeout_s, compression=compression)
        except grpc.RpcError as error:
            outcome.codes[error.code().name] += 1
            outcome.facts["message"] = (error.details() or "")[:160]
        else:
            outcome.codes["OK"] += 1
        return outcome
