"""The floor: the least that a request can cost in a process like the daemon's. One route, a constant answer, no key.

A program of the bench's: prints its port, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def _empty(_: Request) -> JSONResponse:
    return JSONResponse({})


async def _serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/", _empty)])
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, access_log=False, server_header=False)
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
    print(listener.getsockname()[1], flush=True)
    await serving


if __name__ == "__main__":
    uvloop.run(_serve())
