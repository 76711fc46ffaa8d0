"""Three web handlers around an embedded queue: submit, status, statistics. Run `python examples/web_handlers.py`, then:

    curl -X POST localhost:8080/submit -H 'Content-Type: application/json' -d '{"prompt": "Why is the sky blue?", "priority": "high"}'
    curl localhost:8080/status/TASK_ID
    curl localhost:8080/statistics

Any asyncio framework will do; aiohttp is here because inferq brings it along.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

import inferq

QUEUE = web.AppKey("queue", inferq.AsyncQueue)


async def submit(request: web.Request) -> web.Response:
    """Durable when it answers: 202 and the task's id. A wrong body is 400 with the field, a full queue 503."""
    try:
        asked = await request.json()
        task = await request.app[QUEUE].generate(
            asked.get("model", "llama3.2"),
            asked["prompt"],
            priority=asked.get("priority", "normal"),
            executor=asked.get("executor", "ollama"),
        )
    except (ValueError, KeyError, AttributeError) as error:
        return web.json_response({"error": f"expected JSON with a prompt, got: {error!r}"}, status=400)
    except inferq.InferqError as error:
        return web.json_response({"error": str(error), "code": error.code}, status=error.status)
    return web.json_response({"task_id": task.id}, status=202)


async def status(request: web.Request) -> web.Response:
    """The task as it stands, with its result once there is one."""
    queue = request.app[QUEUE]
    try:
        task = await queue.get(request.match_info["id"])
        shown = task.to_dict()
        if task.state is inferq.State.COMPLETED:
            shown["result"] = (await queue.result(task.id)).to_dict()
    except inferq.InferqError as error:
        return web.json_response({"error": str(error), "code": error.code}, status=error.status)
    return web.json_response(shown)


async def statistics(request: web.Request) -> web.Response:
    """Counts by state, priority and lane."""
    return web.json_response(msgspec.to_builtins(await request.app[QUEUE].stats(), str_keys=True))


async def run_queue(app: web.Application) -> AsyncIterator[None]:
    async with inferq.AsyncQueue(os.environ.get("INFERQ_STORE__URL", "sqlite:///web.db")) as app[QUEUE]:
        yield


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(run_queue)
    app.add_routes([web.post("/submit", submit), web.get("/status/{id}", status), web.get("/statistics", statistics)])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
