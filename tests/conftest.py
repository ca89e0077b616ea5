"""Fixtures and hooks for all tests: tiny bundles, servers, async tests, slow tests first, allowed skips."""

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from convvae_service.bundle import ImageShape
from support.serving import ServerProcess, serving
from support.tiny_bundle import GAUSSIAN, publish_tiny

# Hypothesis measures wall-clock time, which says nothing about the code on a busy machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# A test that skips proves nothing, so only the listed tests may skip, and none of them with REQUIRE_ALL=1.
# Tests marked `gpu` may always skip: no installation brings a GPU.
ALLOWED_SKIPS = Path(__file__).parent / "allowed_skips.txt"

# A test that waits longer on its event loop fails, with a traceback that shows where it waits.
ASYNC_TIMEOUT_S = 60


class SkipReferee:
    """Fails a run in which a test skips that may not skip."""

    def __init__(self) -> None:
        lines = ALLOWED_SKIPS.read_text().splitlines()
        listed = [line.partition(" | ") for line in lines if line and not line.startswith("#")]
        # The beginning of a name, and the only reason for which these tests may skip, or "".
        self._allowed = [] if os.environ.get("REQUIRE_ALL") == "1" else [(a, b) for a, _, b in listed]
        self._refused: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note each skip."""
        if report.skipped and not hasattr(report, "wasxfail") and "gpu" not in report.keywords:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if not any(report.nodeid.startswith(name) and why in reason for name, why in self._allowed):
                self._refused[report.nodeid] = reason

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if a skip was not allowed."""
        if self._refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the skips that were not allowed, with their reasons."""
        for nodeid, reason in self._refused.items():
            terminalreporter.write_line(f"SKIP NOT ALLOWED {nodeid}: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Watch the skips in the one process that gets the reports of all workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipReferee(), "skip-referee")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow tests first: one that starts last keeps a single worker busy at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}

    async def run() -> None:
        async with asyncio.timeout(ASYNC_TIMEOUT_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(run())
    return True


@pytest.fixture(autouse=True)
def _same_folder() -> Iterator[None]:
    """A test that leaves another current folder fails, and not one of those that run after it."""
    before = Path.cwd()
    yield
    try:
        after = Path.cwd()
    except FileNotFoundError:  # it was removed
        after = None
    os.chdir(before)
    assert after == before


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model, `tiny`: 8x6x1, latent 4, Bernoulli."""
    root = tmp_path_factory.mktemp("tiny-models")
    publish_tiny(root)
    return root


@pytest.fixture(scope="session")
def zoo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `tiny` (two versions), `colour` (10x12x3, latent 6, Gaussian), `plain` (an `ae`)."""
    root = tmp_path_factory.mktemp("zoo-models")
    publish_tiny(root)
    publish_tiny(root, seed=1)
    publish_tiny(
        root, "colour", shape=ImageShape(height=10, width=12, channels=3), latent_dim=6, likelihood=GAUSSIAN
    )
    publish_tiny(root, "plain", objective="ae")
    return root


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of a server once for each front, or once by the default one if it is marked `one_front`."""
    if "front" in metafunc.fixturenames:
        names = ["auto"] if metafunc.definition.get_closest_marker("one_front") else ["grpcio", "native"]
        metafunc.parametrize("front", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def front(request: pytest.FixtureRequest) -> str:
    """The name of the front that serves the test: see `pytest_generate_tests`."""
    name = str(request.param)
    if name == "native":
        pytest.importorskip("pygrpc_native", reason="the extra [native] is not installed")
    return name


@pytest.fixture
def each_front(front: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The front of all servers that the test starts: it runs once for each."""
    monkeypatch.setenv("CONVVAE_SERVE_FRONT", front)
    return front


@pytest.fixture(scope="session")
def tiny_server(tiny_root: Path, front: str) -> Iterator[ServerProcess]:
    """A server of `tiny_root` with default limits, by each front; for tests that change nothing in it."""
    with serving(tiny_root, "--front", front) as server:
        yield server


@pytest.fixture(scope="session")
def zoo_server(zoo_root: Path, front: str) -> Iterator[ServerProcess]:
    """A server of `zoo_root` with default limits, by each front; for tests that change nothing in it."""
    with serving(zoo_root, "--front", front) as server:
        yield server
