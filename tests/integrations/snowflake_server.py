"""Serve the emulator of Snowflake on loopback: print its port, and end with standard input.

It is started with the Python of the environment that `./wf snowflake` makes, as the emulator needs another major version of
Snowflake's driver than its users have, and nothing of wfengine is imported here. The emulator's answer to a login lacks a
master token, the number of the session and how long they hold, which Snowflake tells and the driver insists on from version 5
on: they are put in. All else is the emulator's own.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading

import fakesnow.server
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SESSIONS = itertools.count(1)
HOUR_SECONDS = 3600


async def login(request: Request) -> Response:
    """Answer a login as the emulator does, with what the driver insists on."""
    answer = await fakesnow.server.login_request(request)
    body = json.loads(bytes(answer.body))
    if "token" in (body.get("data") or {}):
        token = body["data"]["token"]
        valid = {"validityInSeconds": HOUR_SECONDS, "masterValidityInSeconds": 4 * HOUR_SECONDS}
        body["data"] = {"masterToken": token, "sessionId": next(SESSIONS), **valid, **body["data"]}
    return JSONResponse(body, status_code=answer.status_code)


def end_with_input() -> None:
    """End the process when nobody holds the other end of its standard input."""
    sys.stdin.read()
    os._exit(0)


routes = fakesnow.server.app.router.routes
routes[:] = [
    Route(route.path, login, methods=["POST"])
    if isinstance(route, Route) and route.endpoint is fakesnow.server.login_request
    else route
    for route in routes
]
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen(128)
print(listening.getsockname()[1], flush=True)
threading.Thread(target=end_with_input, daemon=True).start()
uvicorn.Server(uvicorn.Config(fakesnow.server.app, log_level="error")).run(sockets=[listening])
