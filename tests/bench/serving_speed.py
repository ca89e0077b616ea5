"""Measure what a call costs the server beyond bare ONNX Runtime, and write results/serving_speed.json.

    python tests/bench/serving_speed.py [BENCH_ROOT] [--quick] [--against COMMIT] [--cells CELL ...]
    python tests/bench/serving_speed.py --target HOST:PORT --pid PID --model NAME [--metrics HOST:PORT]

The first form starts the servers: the working copy with each of its fronts and, with `--against`, that
commit. The second measures a server that runs already. It prints the figures and writes no file. The model
must have images of 28x28x1 and 32 latent values; bare ONNX Runtime runs the reference graphs all the same.

A cell is `METHOD ROWS xCALLERS [GRAPH]`, such as `"Encode 1 x16"`, `"Empty 1 x16"`, `"Decode 64 x4
64x64x3"`. Servers take turns. After each window of a server, bare `session.run` runs the same graph in
batches of the size that the server had (by its metrics; without `--metrics`, of the size of a call).
Processor time is that of the server's whole process tree, from before the first call until after the last.
The callers are bare gRPC stubs in another process, with requests made beforehand.

BENCH_ROOT holds the reference graphs (default ../shared/bench).
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.serving.cell import Cell
from bench.serving.checkout import ROOT, Checkout, checkout_of
from bench.serving.conversation import Conversation
from bench.serving.launch import launched
from bench.serving.server import RunningServer
from bench.serving.summary import Summary
from bench.serving.window import Contender, Window, measure

QUICK = ("Empty 1 x16", "Encode 1 x1", "Encode 1 x16", "Encode 64 x4", "Encode 256 x4", "Encode 1024 x2")
LATENT_DIM = 32


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--quick", action="store_true", help="few cells and short windows")
    parser.add_argument("--cells", nargs="+", type=Cell.of, default=[Cell.of(text) for text in QUICK])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="of a window")
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--target", metavar="HOST:PORT")
    parser.add_argument("--metrics", metavar="HOST:PORT", default="")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--model", default="mnist")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.target:
            servers = [
                RunningServer(name="server", target=options.target, metrics=options.metrics, pid=options.pid)
            ]
        else:
            servers = start_servers(stack, options.bench_root, options.against)
        bare = stack.enter_context(Conversation("bare", str(options.bench_root), "1"))
        contenders = []
        for server in servers:
            arguments = (server.target, options.model, str(LATENT_DIM))
            contenders.append(Contender(server, stack.enter_context(Conversation("callers", *arguments))))
        for cell in options.cells:
            windows: dict[str, list[Window]] = {}
            for name, window in measure(cell, contenders, bare, pairs=options.pairs, seconds=options.seconds):
                windows.setdefault(name, []).append(window)
            for name, each in windows.items():
                print(line_of(cell, name, Summary.of(each)), flush=True)


def start_servers(stack: ExitStack, bench_root: Path, against: str | None) -> list[RunningServer]:
    """Start the working copy with each front, and the other commit."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convvae-bench-")))
    checkouts = [Checkout("this", ROOT)]
    if against:
        checkouts.append(stack.enter_context(checkout_of(against)))
    servers = []
    for checkout in checkouts:
        models = folder / checkout.name / "models"
        checkout.publish(models, bench_root, "28x28x1")
        for front in checkout.fronts() or [""]:
            name = front or checkout.name
            flags = ["--lanes", "1", "--threads", "1", *(["--front", front] if front else [])]
            log = folder / checkout.name / f"{name}.log"
            server, _ = stack.enter_context(launched(checkout, models, log, name=name, flags=flags))
            servers.append(server)
    return servers


def line_of(cell: Cell, name: str, summary: Summary) -> str:
    """Return a summary as one line."""
    failed = f"  FAILED {summary.failed}: {summary.errors}" if summary.failed else ""
    return (
        f"{cell!s:24} {name:12} us a row: {summary.cpu_us!s:28} bare {summary.bare_us!s:24}"
        f" beyond {summary.beyond_us!s:24} batch {summary.batch_rows}  {summary.rows_per_s:,.0f} rows/s"
        f"  p50 {summary.p50_ms} p99 {summary.p99_ms} ms  callers {summary.caller_us:.0f} us a call{failed}"
    )


if __name__ == "__main__":
    main()
