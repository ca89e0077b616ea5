"""Clients in forked processes, beside calls of the parent, each test in a process of its own."""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from support.serving import ServerProcess

pytestmark = pytest.mark.one_front

# The parent calls the server in two threads and forks ten children. Each child runs `CHILD` and reports its
# outcome. The parent then reports the outcomes, the exit statuses and the errors of its own calls.
PROGRAM = """
import asyncio, gc, json, os, select, sys, threading, time
import numpy as np
from convvae import AsyncClient, Client, ConvvaeError
TARGET, TIMEOUT_S = sys.argv[1], 5.0
images = np.zeros((50, 8, 6, 1), np.uint8)
client = Client(TARGET, timeout_s=20)
client.model()
stop, answered, errors = threading.Event(), [0, 0], []

def call(index):
    while not stop.is_set():
        try:
            client.encode(images[:1] if index else images)
            answered[index] += 1
        except ConvvaeError as error:
            errors.append(repr(error))

def fork(child, exit=os._exit):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        start = time.monotonic()
        try:
            outcome = child()
        except ConvvaeError as error:
            outcome = type(error).__name__
        os.write(write, json.dumps([outcome, time.monotonic() - start]).encode())
        exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], TIMEOUT_S + 1)
    outcome = os.read(read, 1000) if ready else b'["HANG", 0]'
    deadline = time.monotonic() + 5
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.005)
    if ended == (0, 0):
        os.kill(pid, 9), os.waitpid(pid, 0)
    os.close(read)
    return *json.loads(outcome or '["nothing", 0]'), ended[1] if ended[0] else "no end"
"""
BUSY = """
threads = [threading.Thread(target=call, args=(index,)) for index in range(2)]
[thread.start() for thread in threads]
time.sleep(0.2)
found = [fork(child, leave) for _ in range(10)]
before = list(answered)
time.sleep(0.5)
lasting = all(now > then for now, then in zip(answered, before))
stop.set()
[thread.join(30) for thread in threads]
print(json.dumps({"found": found, "errors": errors, "lasting": lasting}))
os._exit(0)
"""


def run(code: str, target: str, **environ: str) -> Any:
    """Run a program and return the JSON that it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + code, target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("child", "leave", "expected"),
    [
        ("client.encode(images, timeout_s=TIMEOUT_S)", "os._exit", "ForkedDuringUse"),
        ("client.encode(images[:1], timeout_s=TIMEOUT_S)", "sys.exit", "ForkedDuringUse"),
        ("Client(TARGET).health()", "os._exit", "ForkedDuringUse"),
        ("asyncio.run(AsyncClient(TARGET).model())", "sys.exit", "ForkedDuringUse"),
        ("client.close()", "sys.exit", None),
        ("time.sleep(0.1)", "os._exit", None),
        ("[gc.collect()] and None", "sys.exit", None),
    ],
)
def test_forks_beside_calls_in_flight(
    tiny_server: ServerProcess, child: str, leave: str, expected: str | None
) -> None:
    """Ten children are refused at once or end in order, and every call of the parent is answered."""
    code = f"child, leave = lambda: {child}, {leave}\n{BUSY}"
    report = run(code, tiny_server.target)
    assert Counter((outcome, status) for outcome, _, status in report["found"]) == {(expected, 0): 10}
    assert max(seconds for _, seconds, _ in report["found"]) < 2
    assert (report["errors"], report["lasting"]) == ([], True)


@pytest.mark.parametrize(
    ("child", "expected"), [("client.encode(images[:1])", "ForkedDuringUse"), ("client.close()", None)]
)
def test_forks_beside_joint_calls(tiny_server: ServerProcess, child: str, expected: str | None) -> None:
    """A child has the parent's waiting calls and perhaps a held lock, and is refused at once all the same."""
    # Both threads send one row, so that one waits to be joined at nearly every fork.
    code = f"""
images = images[:1]
client = Client(TARGET, timeout_s=20, coalesce=True)
client.model()
child, leave = lambda: {child}, sys.exit
{BUSY}"""
    report = run(code, tiny_server.target)
    assert Counter((outcome, status) for outcome, _, status in report["found"]) == {(expected, 0): 10}
    assert max(seconds for _, seconds, _ in report["found"]) < 2
    assert (report["errors"], report["lasting"]) == ([], True)


def test_a_client_of_the_child_works_after_the_parent_closed_its_own(tiny_server: ServerProcess) -> None:
    """After `close`, clients of both kinds work in children, and in the parent again."""
    code = """
client.encode(images)
client.close()

async def rows():
    async with AsyncClient(TARGET, timeout_s=TIMEOUT_S) as vae:
        return len((await vae.encode(images)).mean)

def sync_rows():
    with Client(TARGET, timeout_s=TIMEOUT_S) as vae:
        return len(vae.encode(images).mean)

found = [fork(sync_rows), fork(lambda: asyncio.run(rows())), fork(lambda: client.model())]
found.append((asyncio.run(rows()), sync_rows(), 0))
found += [fork(sync_rows), fork(lambda: asyncio.run(rows()))]
print(json.dumps([outcome for outcome, _, _ in found]))
"""
    assert run(code, tiny_server.target) == [50, 50, "ClientClosed", 50, 50, 50]


def test_an_open_async_client_refuses_its_children(tiny_server: ServerProcess) -> None:
    """A child of a running event loop is refused at once, and the parent's call is answered."""
    code = """
client.close()

async def main():
    async with AsyncClient(TARGET) as vae:
        await vae.model()
        calls = [asyncio.create_task(vae.encode(images)) for _ in range(20)]
        await asyncio.sleep(0.01)

        async def again():
            await vae.model()

        async def closes():
            await vae.close()

        def new_loop(steps):
            loop = asyncio.new_event_loop()
            asyncio._set_running_loop(None)
            return loop.run_until_complete(steps())

        found = [fork(lambda: new_loop(again)), fork(lambda: new_loop(closes))]
        found.append((len(await asyncio.gather(*calls)), 0, 0))
        return found

print(json.dumps([(outcome, status) for outcome, _, status in asyncio.run(main())]))
"""
    assert run(code, tiny_server.target) == [["ForkedDuringUse", 0], [None, 0], [20, 0]]


@pytest.mark.parametrize(
    ("method", "expected"), [("fork", "ForkedDuringUse"), ("forkserver", 3), ("spawn", 3)]
)
def test_workers_of_multiprocessing(tiny_server: ServerProcess, method: str, expected: object) -> None:
    """Workers that do not inherit gRPC work. A forked one is refused, and its error reaches the parent."""
    code = f"""
import multiprocessing, operator
context = multiprocessing.get_context("{method}")
with context.Pool(1) as pool:
    try:
        outcome = len(pool.apply(operator.methodcaller("sample", 3), (client,)).images)
    except ConvvaeError as error:
        outcome = type(error).__name__
    client.model()
print(json.dumps(outcome))
client.close()
"""
    assert run(code, tiny_server.target) == expected


def test_workers_of_a_data_loader(tiny_server: ServerProcess) -> None:
    """Each worker of a DataLoader opens a client; forked workers need the parent's to be closed."""
    pytest.importorskip("torch")
    code = """
import torch
from torch.utils.data import DataLoader, IterableDataset

class Latents(IterableDataset):
    def __iter__(self):
        with Client(TARGET, timeout_s=TIMEOUT_S) as vae:
            yield from torch.from_numpy(vae.encode(images).mean)

def rows():
    try:
        return sum(len(batch) for batch in DataLoader(Latents(), batch_size=10, num_workers=2,
                                                     multiprocessing_context="fork"))
    except Exception as error:
        return "ForkedDuringUse" in str(error)

found = [rows()]
client.close()
found.append(rows())
print(json.dumps(found))
"""
    assert run(code, tiny_server.target, OMP_NUM_THREADS="1") == [True, 100]
