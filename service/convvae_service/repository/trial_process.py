"""The process of a trial: it tries one version under limits, and writes the result to stdout as JSON.

`python -m convvae_service.repository.trial_process ORDER`, where ORDER is the JSON object that `Trial` makes.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from convvae_service.bundle import BundleError, read_bundle, read_trained_on
from convvae_service.engine.stages import Engine
from convvae_service.errors import StartupError

__all__ = ["main"]

_ALLOCATION = ("bad_alloc", "allocate memory", "AllocateRaw", "Unable to allocate")


def main() -> None:
    """Try the version of the order, and write the result."""
    order = json.loads(sys.argv[1])
    # The answer alone goes to stdout, whatever ONNX Runtime prints.
    answer = os.dup(1)
    os.dup2(2, 1)
    _limit(order["timeout_s"], order["max_bytes"])
    result = json.dumps(_try(order))
    with os.fdopen(answer, "w") as file:
        file.write(result)
    # ONNX Runtime has nothing to put in order, and its end takes time.
    os._exit(0)


def _limit(timeout_s: float, max_bytes: int) -> None:
    """Limit this process. SIGALRM ends it in any code, also after the end of its server."""
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(
        resource.RLIMIT_DATA,
        (max_bytes if hard == resource.RLIM_INFINITY else min(max_bytes, hard), hard),
    )
    with contextlib.suppress(OSError):
        # Where memory runs out, this process ends and not the server.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _try(order: dict[str, Any]) -> dict[str, Any]:
    too_large = (
        f"needs more than {order['max_bytes'] >> 20} MiB to load and run: make its graphs smaller, or raise"
        " --max-load-bytes"
    )
    try:
        bundle = read_bundle(Path(order["folder"]), model=order["model"], version=order["version"])
        manifest = bundle.manifest
        if order["every"]:
            # For the trainer alone: no server reads them, and a version without the file serves.
            read_trained_on(Path(order["folder"]), manifest)
        for precision in manifest.precisions if order["every"] else [order["precision"]]:
            engine = Engine(bundle, precision=precision, device="cpu")
            engine.warm(1)
            engine.close()
    except MemoryError:
        return {"error": too_large}
    except BundleError as error:
        return {"error": too_large if any(word in str(error) for word in _ALLOCATION) else str(error)}
    except StartupError as error:
        return {"error": str(error), "fatal": True}
    except OSError as error:
        return {"error": f"cannot be read: {error.strerror or 'input or output error'}", "again": True}
    summary = (
        f"{manifest.objective}, {manifest.likelihood.name}, {manifest.image}, latent {manifest.latent_dim},"
        f" {', '.join(manifest.precisions)}"
    )
    return {"summary": summary, "sha256": bundle.sha256}


if __name__ == "__main__":
    main()
