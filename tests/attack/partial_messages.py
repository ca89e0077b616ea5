"""Messages that never end, and streams whose replies nobody reads: results/FRONT/partial_messages.json.

    python tests/attack/partial_messages.py [--front grpcio|native]

Eight callers each send 40 MiB of a message of 60 MiB, and then nothing. The server's `max_call_s` is 3.
"""

import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import ENCODE, STREAM_INFER
from attack.target import Outcome, Target, attacked
from open_inference import inference_pb2
from support.figure import measure_to_files
from support.raw_connection import RawConnection
from support.raw_http2 import grpc_message
from support.tiny_bundle import SHAPE, publish_tiny

MIB = 1 << 20
STATED_MIB = 60
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
LISTING = "/convvae.v1.VaeService/ListModels"
CALLERS = 8
MAX_CALL_S = 3.0
SEND_S = 6.0


def send_part(address: str, method: str, mib: float, stated_mib: float, hold_s: float) -> Outcome:
    """Send the first part of a message that states a length, and hold the connection."""
    connection = RawConnection(address)
    try:
        stream = connection.begin(method)
        prefix = b"\0" + int(stated_mib * MIB).to_bytes(4, "big")
        sent = connection.send_data(stream, prefix + bytes(int(mib * MIB)), timeout_s=SEND_S)
        _hold(connection, hold_s)
        return Outcome(sent_bytes=connection.sent_bytes, facts={"sent_of_the_last_caller": sent})
    finally:
        connection.close()


def stream_whole(address: str, mib: float, messages: int, leave_after_s: float) -> Outcome:
    """Stream whole messages as fast as gRPC sends them, and leave in the middle unless it is 0 s."""
    data = b"\x0a" + bytes(int(mib * MIB) - 1)
    codes: Counter[str] = Counter()
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        begin: Any = channel.stream_stream(STREAM_INFER)
        call = begin(iter([data] * messages), timeout=SEND_S)
        if leave_after_s:
            threading.Timer(leave_after_s, call.cancel).start()
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            codes[error.code().name] += 1
    return Outcome(sent_bytes=len(data) * messages, codes=codes)


def infer_unread(address: str, id_bytes: int, requests: int, hold_s: float) -> Outcome:
    """Send requests with long ids on a stream that lets no reply through: the reply echoes the id."""
    request = inference_pb2.ModelInferRequest(
        model_name="tiny.encoder", id="i" * id_bytes, raw_input_contents=[bytes(SHAPE.num_values)]
    )
    request.inputs.add(name="image", datatype="UINT8", shape=[1, *SHAPE.as_tuple])
    data = grpc_message(request.SerializeToString())
    # No reply fits into a window of 0.
    connection = RawConnection(address, {4: 0})
    try:
        stream = connection.begin(STREAM_INFER)
        for _ in range(requests):
            connection.send_data(stream, data, timeout_s=2.0)
        _hold(connection, hold_s)
        return Outcome(sent_bytes=connection.sent_bytes)
    finally:
        connection.close()


def _hold(connection: RawConnection, hold_s: float) -> None:
    end_s = time.monotonic() + hold_s
    while time.monotonic() < end_s and not connection.closed:
        connection.read(0.2)


def measure(front: str, mib: float = 40.0, hold_s: float = 1.0) -> dict[str, Any]:
    """Return the figures of parts of so many MiB, held for so many seconds."""
    methods = {"Encode": ENCODE, "ModelStreamInfer": STREAM_INFER, "ListModels": LISTING, "Check": CHECK}
    methods |= {"Watch": WATCH, "reflection": REFLECTION}
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        with attacked(front, Path(folder), "--max-call-s", str(MAX_CALL_S)) as target:
            for name, method in methods.items():
                parts = f"parts of messages for {name}"
                target.observe(parts, send_part, method, mib, STATED_MIB, hold_s, callers=CALLERS)
            for leave_after_s in (0.0, 0.1, 0.4):
                end = f"left after {leave_after_s:g} s" if leave_after_s else "to their end"
                name = f"streams of whole messages, {end}"
                target.observe(name, stream_whole, 1.5 * mib, 6, leave_after_s, callers=4)
            target.observe("stated lengths of 4 GiB", send_part, ENCODE, 0.1, 4095.9, hold_s, callers=64)
            for id_bytes, requests in ((int(mib * MIB), 20), (1000, 2000), (1, 20_000)):
                name = f"{requests} requests with ids of {id_bytes} B, no reply read"
                target.observe(name, infer_unread, id_bytes, requests, hold_s)
            id_bytes = int(mib * MIB / 4)
            target.observe("large ids from 4 callers", infer_unread, id_bytes, 20, hold_s, callers=4)
            held = _held_after_the_limit(target, mib)
            result = target.finish()
    left_mb = held.get("left_mb_while_connected")
    result["met"]["a call that is too late holds nothing while its connection lasts"] = (
        left_mb is not None and left_mb <= result["idle_mb"] + 60
    )
    return {
        "figure": "messages that never end, and replies that nobody reads",
        "mib": mib,
        **result,
        "held": held,
    }


def _held_after_the_limit(target: Target, mib: float) -> dict[str, Any]:
    """Return the memory 5 s after `max_call_s` has ended a call whose connection goes on."""
    hold_s = MAX_CALL_S + SEND_S
    callers = [
        threading.Thread(target=send_part, args=(target.address, ENCODE, mib, STATED_MIB, hold_s))
        for _ in range(CALLERS)
    ]
    for caller in callers:
        caller.start()
    time.sleep(MAX_CALL_S + 5.0)
    found = {"left_mb_while_connected": target.resident_mb()}
    for caller in callers:
        caller.join()
    return found


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
