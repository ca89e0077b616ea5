"""Measure this service beside mosec, LitServe, BentoML and MLServer, and write results/serving_peers.*.

    make bench-peers
    python tests/bench/serving_peers.py [BENCH_ROOT] [--peers mosec ...] [--pairs 5]

All run the same encoder (28x28x1) with the same version of ONNX Runtime on one thread, one worker each, and
get the same pixels as raw bytes. They take turns with each other and with bare `session.run`. The callers are
the same program for all: threads with a connection each, which send a request made beforehand and look
only for the end and the status of the reply, by HTTP/1.1 or by gRPC. The report says what a call cost them.

Each peer runs as its documents advise for raw bytes, with its own batching where it has that for bytes: see
`serving/peers`. The service has its default settings but for one lane of one thread; its log of calls is on.

BENCH_ROOT holds the reference graphs (default ../shared/bench).
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.serving.cell import Cell
from bench.serving.cells import PEERS as CELLS
from bench.serving.checkout import ROOT, Checkout
from bench.serving.conversation import Conversation
from bench.serving.launch import FLAGS, launched
from bench.serving.peer import PEERS, launched_peer
from bench.serving.run import Run, end_on_signals
from bench.serving.server import Server

RESULT = Path(__file__).parent / "results" / "serving_peers.json"


def main() -> None:
    """Run the measurement and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--peers", nargs="+", default=[peer.name for peer in PEERS])
    parser.add_argument("--cells", nargs="+", type=Cell.of, default=CELLS)
    parser.add_argument("--pairs", type=int, default=5, help="windows of each cell and server (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window (default 1)")
    parser.add_argument("--minutes", type=float, default=12, help="after which no cell begins (default 12)")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    end_on_signals()
    run = Run(pairs=options.pairs, seconds=options.seconds, limit_s=60 * options.minutes)
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convvae-bench-")))
        bare = stack.enter_context(Conversation("bare", str(options.bench_root), "1"))
        checkout, servers = Checkout("this service", ROOT), list[Server]()
        checkout.publish(folder / "models", options.bench_root, Checkout.first_graph)
        for front in checkout.fronts():
            log = folder / f"{front}.log"
            server, _ = stack.enter_context(launched(checkout, folder / "models", log, front=front))
            servers.append(server)
        for peer in PEERS:
            if peer.name not in options.peers:
                continue
            if why := peer.left_out():
                run.left_out[peer.name] = why
                continue
            own_folder = folder / peer.name
            own_folder.mkdir()
            graph = options.bench_root / f"encoder_{Checkout.first_graph}.onnx"
            try:
                servers.append(stack.enter_context(launched_peer(peer, graph, own_folder)))
            except RuntimeError as error:
                run.left_out[peer.name] = str(error)
                continue
            versions[peer.name] = peer.version()
        run.measure(options.cells, servers, bare)
    more = {"peers": versions, "flags": " ".join(FLAGS)}
    run.publish(
        options.out,
        figure="processor time of a call, beside servers of other projects",
        reference="mosec",
        more=more,
    )


if __name__ == "__main__":
    main()
