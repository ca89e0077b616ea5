"""The connection to a Ray cluster, without Ray's own output."""

import logging
import os
import re
import secrets
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import grpc

from convvae_service.pipeline.errors import BadCluster, BadUse, Interrupted, MissingExtra

__all__ = ["Cluster", "Node", "check_address", "reason_of"]

# The variable by which `ray job submit` names its cluster.
ADDRESS_VARIABLE = "RAY_ADDRESS"
AUTO, LOCAL = "auto", "local"
_ADDRESS = re.compile(r"[^/\s]+:[0-9]{1,5}")
_WAIT_S = 10.0
# Workers send vectors and take numbers of rows, so little is in flight.
_OBJECT_STORE_BYTES = 256 << 20
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def check_address(address: str, *, name: str = "--ray-address") -> None:
    """Raise `BadUse` if an address, given by this name, has not the form `auto` or `HOST:PORT`."""
    if address.startswith("ray://"):
        # Ray's client has no streaming methods of actors, which Ray Data is made of.
        raise BadUse(
            f"Ray's client at {address} runs no Ray Data: give HOST:PORT on a node of the cluster, or use ray"
            " job submit"
        )
    if address != AUTO and not _ADDRESS.fullmatch(address):
        raise BadUse(f"{name} is {address!r}: it must be auto or HOST:PORT")


class Node(NamedTuple):
    """The CPUs and GPUs that a machine gives to a cluster."""

    cpus: int
    gpus: int

    def __str__(self) -> str:
        """Return the sizes in words."""
        gpus = f" and {self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        return f"{self.cpus} CPU{'s' * (self.cpus != 1)}{gpus}"

    def room(self, threads: int, *, has_gpu: bool) -> int:
        """Return the number of workers with so many CPUs each, and a GPU if they have one."""
        workers = self.cpus // threads
        return min(workers, self.gpus) if has_gpu else workers


class Cluster:
    """A connection to a cluster, or a cluster on this machine. Until it is closed, `sys.stdout` is dropped.

    Ray writes there that workers died, also if it has started them again.

    Args:
        address: Address of the cluster. None takes RAY_ADDRESS, and without it starts a cluster.
        cpus: Number of CPUs of a cluster that is started.

    Raises:
        MissingExtra: Ray is not installed.
        BadCluster: No cluster answers.
        BadUse: The address has another form.

    Attributes:
        ray: The module `ray`.
    """

    def __init__(self, address: str | None, *, cpus: int) -> None:
        given, address = address, address or os.environ.get(ADDRESS_VARIABLE) or LOCAL
        hint = ""
        options: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
        # Ray reads these when it is imported. It would report the use to its makers.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        if address == LOCAL:
            # A cluster runs whatever it is sent, and its ports are open to the network. Without this, Ray
            # would write a token into the home folder.
            if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            options |= {
                "num_cpus": cpus,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
        else:
            check_address(address, name="--ray-address" if given else ADDRESS_VARIABLE)
            if address != AUTO and _asks_for_token(address):
                os.environ.setdefault("RAY_AUTH_MODE", "token")
                hint = ": it asks for a token, which RAY_AUTH_TOKEN must have"
        self.ray = _import_ray()
        self._own_folder: Path | None = None
        self._open = ExitStack()
        nothing = self._open.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115 - closed by `close`
        self._open.enter_context(redirect_stdout(nothing))
        # Ray installs a handler of its own.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with _silent_stderr():
                context = self.ray.init(address, **options)
        except SystemExit:  # by that handler
            self.close()
            raise Interrupted(signal.SIGTERM) from None
        except Exception as error:  # noqa: BLE001 - Ray's exceptions share no base class
            self.close()
            hint = hint * isinstance(error, ConnectionError)
            text = " ".join(str(error).split())[:300].removesuffix(".")
            raise BadCluster(f"Ray at {address}: {text}{hint}") from None
        finally:
            signal.signal(signal.SIGTERM, handler)
        if address == LOCAL:
            self._own_folder = Path(context.address_info["session_dir"])

    def keep_logs(self) -> None:
        """Keep the folder with Ray's logs, if the cluster was started here."""
        self._own_folder = None

    def nodes(self) -> list[Node]:
        """Return the nodes that are there now."""
        found = (node["Resources"] for node in self.ray.nodes() if node["Alive"])
        return [Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in found]

    def close(self) -> None:
        """Leave the cluster, or end it if it was started here. It may be called again."""
        self.ray.shutdown()
        self._open.close()
        if self._own_folder is not None:
            # Ray keeps the folder of every cluster that there ever was.
            shutil.rmtree(self._own_folder, ignore_errors=True)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what Ray writes to the descriptor itself while it starts, such as a line on its log level."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "ray", "ray") from None
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray


def _asks_for_token(address: str) -> bool:
    """Check that a cluster answers. Ray itself would wait for half a minute, and then end the process.

    Raises:
        BadCluster: It does not answer, or is another server.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_WAIT_S)
            channel.unary_unary(_CHECK_ALIVE, bytes, bytes)(b"", timeout=_WAIT_S)
        except grpc.FutureTimeoutError:
            raise BadCluster(f"no Ray cluster answers at {address} within {_WAIT_S:.0f} s") from None
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return True
            raise BadCluster(f"the server at {address} is no Ray cluster: {error.code().name}") from None
    return False


def reason_of(error: Exception) -> str:
    """Return the line of an error of Ray that has the reason."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return _shown(f"{type(cause).__name__}: {str(cause).strip()}".splitlines()[0])
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if getattr(error, "actor_init_failed", False):
        return _shown(lines[-1])  # of a traceback
    # The death of an actor has its reason after lines that say which actor it was.
    told = [line for line in lines if not line.startswith("\t")]
    return _shown(told[1] if 1 < len(told) < len(lines) else told[0])


def _shown(line: str) -> str:
    return line.strip()[:300].removesuffix(".")
