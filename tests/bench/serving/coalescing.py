"""Callers that share one client of this project, which joins their calls, in a process of their own.

    python -m bench.serving.coalescing HOST:PORT Client|AsyncClient MODEL ROWS CALLERS HEIGHT WIDTH CHANNELS

Each line of its input, {"seconds": 1.0}, is answered by a line of JSON when the last call has ended.
"""

import asyncio
import json
import sys
import time
from typing import Any

from bench.serving.callers import Tally
from bench.serving.cell import Cell
from bench.serving.messages import images_of
from convvae import AsyncClient, Client
from convvae.errors import ConvvaeError

__all__ = ["arguments_of"]


def arguments_of(cell: Cell, target: str, model: str) -> list[str]:
    """Return the arguments of this program for a cell."""
    return [target, cell.via, model, *map(str, (cell.rows, cell.callers, *cell.shape))]


def main() -> None:
    """Answer each line of the input."""
    target, via, model, *numbers = sys.argv[1:]
    rows, callers, *shape = map(int, numbers)
    cell = Cell(method="Encode", rows=rows, callers=callers, graph="x".join(map(str, shape)))
    if via == "Client":
        call_by_client(target, model, cell)
    else:
        asyncio.run(call_by_async_client(target, model, cell))


def call_by_client(target: str, model: str, cell: Cell) -> None:
    """Call in a thread for each caller."""
    images = images_of(cell)
    with Client(target, coalesce=True) as client:
        client.encode(images, model=model)
        for line in sys.stdin:
            calls = [lambda: client.encode(images, model=model)] * cell.callers
            print(json.dumps(Tally(**json.loads(line)).call_in_threads(calls, ConvvaeError)), flush=True)


async def call_by_async_client(target: str, model: str, cell: Cell) -> None:
    """Call in a task for each caller."""
    images = images_of(cell)
    async with AsyncClient(target, coalesce=True) as client:
        await client.encode(images, model=model)

        async def repeat(tally: Tally) -> None:
            going = True
            while going:
                begun_s, error = time.perf_counter(), None
                try:
                    await client.encode(images, model=model)
                except ConvvaeError as raised:
                    error = raised
                tally.add(begun_s, error)
                going = tally.open

        async def calls_of(question: dict[str, Any]) -> dict[str, Any]:
            tally = Tally(**question)
            await asyncio.gather(*(repeat(tally) for _ in range(cell.callers)))
            return tally.report()

        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await calls_of(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
