"""Restate: its server beside this process, handlers over HTTP on loopback; each `ctx.run` is a durable step."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import hypercorn.asyncio
import restate
from hypercorn.config import Config
from measured import measured

bench = restate.Service("bench")


async def one(number: int) -> int:
    return number + 1


@bench.handler()
async def chained(ctx: restate.Context, tasks: int) -> float:
    began = time.perf_counter()
    number = 0
    for index in range(tasks):
        number = await ctx.run_typed(f"step-{index}", one, number=number)
    return time.perf_counter() - began


@bench.handler()
async def mapped(ctx: restate.Context, tasks: int) -> float:
    began = time.perf_counter()
    await restate.gather(*[ctx.run_typed(f"step-{index}", one, number=index) for index in range(tasks)])
    return time.perf_counter() - began


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(url: str, body: object) -> object:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.loads(answer.read() or b"null")


def retried(url: str, body: object) -> None:
    for _ in range(300):
        try:
            post(url, body)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} did not answer")


handlers_port, ingress_port, admin_port, node_port = (free_port() for _ in range(4))
config = Config()
config.bind = [f"127.0.0.1:{handlers_port}"]
config.loglevel = "CRITICAL"
config.accesslog = None


def serve() -> None:
    asyncio.run(hypercorn.asyncio.serve(restate.app([bench]), config, shutdown_trigger=lambda: asyncio.Future()))


threading.Thread(target=serve, daemon=True).start()
server = subprocess.Popen(
    [os.environ["RESTATE_SERVER"], "--base-dir", str(Path.cwd() / "restate-data"), "--node-name", "bench"],
    env={
        **os.environ, "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress_port}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin_port}", "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node_port}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node_port}", "RESTATE_DISABLE_TELEMETRY": "true",
    },
    stdout=os.open("server.log", os.O_WRONLY | os.O_CREAT), stderr=subprocess.STDOUT, start_new_session=True,
)  # fmt: skip
try:
    retried(f"http://127.0.0.1:{admin_port}/deployments", {"uri": f"http://127.0.0.1:{handlers_port}", "force": True})

    def chain(tasks: int) -> float:
        return float(post(f"http://127.0.0.1:{ingress_port}/bench/chained", tasks))

    def fan_out(tasks: int) -> float:
        return float(post(f"http://127.0.0.1:{ingress_port}/bench/mapped", tasks))

    def flows(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            chain(3)
        return time.perf_counter() - began

    measured(chain, fan_out, flows)
finally:
    os.killpg(server.pid, signal.SIGKILL)  # the program of the package only starts the server
os._exit(0)
