"""Measure what a call costs the server beyond bare ONNX Runtime, and write results/serving_speed.*.

    python tests/bench/serving_speed.py [BENCH_ROOT] [--quick | --full] [--against COMMIT] [--cells CELL ...]
    python tests/bench/serving_speed.py --target HOST:PORT --pid PID --model NAME [--metrics HOST:PORT]

The first form starts the servers: the working copy with each of its fronts and, with `--against`, that
commit, which it unpacks in a temporary folder. It takes up to 12 minutes, with `--quick` 2, and with
`--full`, which measures every number of rows and callers, an hour or two. It writes a JSON file, a report
and a plot.

The second form measures a server that runs already. It prints the figures and writes no file. The model
must have images of 28x28x1 and 32 latent values; bare ONNX Runtime runs the reference graphs all the
same.

A cell is `METHOD ROWS xCALLERS [GRAPH] [by CALLERS]`, such as `"Encode 1 x16"`, `"Empty 1 x16"`, `"Decode
64 x4 64x64x3"` or `"Encode 1 x16 by ghz"`. Servers take turns. After each window of a server, bare
`session.run` runs the same graph in batches of the size that the server had (by its metrics; without
`--metrics`, of the size of a call). Processor time is that of the server's whole process tree, from
before the first call until after the last. Callers are threads of another process, which send requests
that were made beforehand and look only for the end of each reply.

BENCH_ROOT holds the reference graphs (default ../shared/bench).
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.serving.cell import Cell
from bench.serving.cells import DEFAULT, FULL, QUICK
from bench.serving.checkout import ROOT, Checkout, checkout_of
from bench.serving.conversation import Conversation
from bench.serving.idle import measure_idle
from bench.serving.launch import FLAGS, launched
from bench.serving.parts import has_profiler, measure_parts
from bench.serving.run import Run, end_on_signals
from bench.serving.server import RunningServer

RESULT = Path(__file__).parent / "results" / "serving_speed.json"
GRAPHS = ("28x28x1", "64x64x3")
PART_CELLS = ("Encode 1 x16", "Encode 64 x4")


def main() -> None:
    """Run the measurement."""
    options = arguments()
    end_on_signals()
    run = Run(pairs=options.pairs, seconds=options.seconds, limit_s=60 * options.minutes)
    with ExitStack() as stack:
        bare = stack.enter_context(Conversation("bare", str(options.bench_root), "1"))
        if options.target:
            models = {GRAPHS[0]: options.model}
            given = RunningServer(
                name="server", target=options.target, metrics=options.metrics, pid=options.pid, models=models
            )
            run.measure(options.cells, [given], bare)
            return
        checkouts = [Checkout("working copy", ROOT)]
        if options.against:
            checkouts.append(stack.enter_context(checkout_of(options.against)))
        idle = {} if options.quick else measure_idle(checkouts, options.bench_root, runs=options.pairs)
        servers = start_servers(stack, checkouts, options.bench_root)
        run.measure(options.cells, servers, bare)
        parts = {} if options.quick else parts_of(run, servers)
    more = {"idle": idle, "parts": parts, "flags": " ".join(FLAGS), "against": options.against}
    run.publish(
        options.out,
        figure="processor time of a call on the server beyond bare ONNX Runtime",
        reference=options.against or "grpcio",
        more=more,
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench_root", nargs="?", default="../shared/bench", type=Path)
    parser.add_argument("--quick", action="store_true", help="few cells, no profile")
    parser.add_argument("--full", action="store_true", help="every number of rows and callers")
    parser.add_argument("--cells", nargs="+", type=Cell.of, help="only these")
    parser.add_argument("--pairs", type=int, default=5, help="windows of each cell and server (default 5)")
    parser.add_argument("--seconds", type=float, default=0.7, help="of a window (default 0.7)")
    parser.add_argument("--minutes", type=float, help="after which no cell begins (default 10, --full 150)")
    parser.add_argument("--against", metavar="COMMIT", help="measure this commit beside the working copy")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--target", metavar="HOST:PORT", help="measure this server only")
    parser.add_argument("--metrics", metavar="HOST:PORT", default="", help="of --target")
    parser.add_argument("--pid", type=int, help="of --target")
    parser.add_argument("--model", default="mnist", help="of --target")
    options = parser.parse_args()
    if options.target and not options.pid:
        parser.error("--target needs --pid")
    if options.cells is None:
        quick = options.quick or options.target
        options.cells = QUICK if quick else FULL if options.full else DEFAULT
    if options.minutes is None:
        options.minutes = 150 if options.full else 10
    return options


def start_servers(stack: ExitStack, checkouts: list[Checkout], bench_root: Path) -> list[RunningServer]:
    """Start each commit with each of its fronts."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convvae-bench-")))
    servers = []
    for number, checkout in enumerate(checkouts):
        models = folder / str(number)
        # The bench of another commit may publish only the first graphs.
        for graph in GRAPHS if checkout.root == ROOT else GRAPHS[:1]:
            checkout.publish(models, bench_root, graph)
        for front in checkout.fronts():
            log = folder / f"{number} {front}.log"
            server, _ = stack.enter_context(launched(checkout, models, log, front=front))
            servers.append(server)
    return servers


def parts_of(run: Run, servers: list[RunningServer]) -> dict[str, Any]:
    """Return the microseconds of a row by part, for each server and some cells."""
    if not has_profiler():
        run.left_out["where the time goes"] = "py-spy is not in .tools: run `make tools`"
        return {}
    found = {}
    for text in PART_CELLS:
        for server in servers:
            try:
                found[f"{text}, {server.name}"] = measure_parts(server, Cell.of(text), seconds=3)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                run.left_out[f"where the time goes: {text}, {server.name}"] = str(error)
    return found


if __name__ == "__main__":
    main()
