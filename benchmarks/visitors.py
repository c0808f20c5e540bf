"""What many visitors who open the Start page at the same moment do to the server.

    python -m benchmarks.visitors [--visitors 60]

Starts the app on the shipped runs, opens the page a few times for one visitor alone, then for all
at once, each over a websocket of its own that stays open until everybody's page has been drawn.
Once a second the server is asked whether it is well. Prints the seconds of one
alone and of all, how much longer all take than one after the other, the slowest answer about the
server's health, and the memory that the process gained.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from benchmarks.app_server import health_s, serving

MOST_S = 600.0


@asynccontextmanager
async def visit(address: str) -> AsyncIterator[None]:
    """A visitor whose page has been drawn; leaves at the end."""
    async with connect(
        f"{address.replace('http', 'ws', 1)}/_stcore/stream",
        origin=Origin(address),
        subprotocols=[Subprotocol("streamlit")],
        open_timeout=MOST_S,
        max_size=None,
        ping_timeout=None,
    ) as stream:
        opening, message = BackMsg(), ForwardMsg()
        opening.rerun_script.query_string = ""
        await stream.send(opening.SerializeToString())
        while message.WhichOneof("type") != "script_finished":
            message.ParseFromString(await stream.recv(decode=False))
        yield


async def alone(address: str) -> float:
    """Seconds of one visitor alone: the median of a few, without the first, which loads."""
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        async with visit(address):
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


async def together(address: str, n: int) -> tuple[float, list[float]]:
    """Seconds until all have their page, and what the server needed to say that it is well."""
    barrier = asyncio.Barrier(n + 1)

    async def stay() -> None:
        async with visit(address):
            await barrier.wait()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as visitors:
        for _ in range(n):
            visitors.create_task(stay())
        everybody = visitors.create_task(asyncio.wait_for(barrier.wait(), MOST_S))
        health = []
        while not everybody.done():
            health.append(await asyncio.to_thread(health_s, address))
            await asyncio.sleep(1)
        return time.perf_counter() - started, health


def main() -> None:
    """Start the app, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--visitors", type=int, default=60)
    n = parser.parse_args().visitors
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (address, server):
        process = psutil.Process(server.pid)
        one = asyncio.run(alone(address))
        before = process.memory_info().rss
        seconds, health = asyncio.run(together(address, n))
        growth = process.memory_info().rss - before
    print(f"one alone      {one:.2f} s")
    print(f"{n} at once    {seconds:.1f} s, {seconds / (n * one):.2f} times one after the other")
    print(f"health         slowest of {len(health)}: {max(health):.2f} s")
    print(f"memory         {growth / 2**20:+.0f} MiB")


if __name__ == "__main__":
    main()
