"""Tasks over HTTP: submit, ask, wait, cancel, move, retry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferq.access import authorise_again, check_priority, require_everything, require_visible
from inferq.clock import SystemClock
from inferq.errors import (
    DuplicateKey,
    InferqError,
    InvalidQuery,
    InvalidRequest,
    InvalidTask,
    PayloadTooLarge,
    QueueFull,
    RateLimited,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    WaitTimeout,
    WrongState,
)
from inferq.given import checked_priority
from inferq.intake import STREAMED_ACTIONS
from inferq.query import Query, parse
from inferq.server.call import Call, Reply
from inferq.server.route import Route, route
from inferq.store import Cursor, Filter, checked_cursor
from inferq.task import ShownAttempt, ShownResult, State, Submission, Task, new_id, priority_number
from inferq.waiting import Waiting
from inferq.wire.native import Listing, PriorityBody, ReasonBody, RetryBody, ScopeBody, SubmitBody, Submitted, TaskView, task_view

Wait = Annotated[float, Meta(ge=0, le=300, description="Seconds to wait for the end of the task, within `server.max_wait`.")]
_clock: Final = SystemClock()


class WaitQuery(msgspec.Struct, forbid_unknown_fields=True):
    wait: Wait = 0.0


class ListQuery(msgspec.Struct, forbid_unknown_fields=True):
    q: Annotated[str, Meta(max_length=10_000, description="A text of the filter language, such as `state:failed created:>-2h`.")] = ""
    state: list[State] = []
    status: Annotated[list[State], Meta(description="The same as `state`.")] = []
    action: list[str] = []
    type: Annotated[list[str], Meta(description="The same as `action`.")] = []
    executor: list[str] = []
    executor_type: Annotated[list[str], Meta(description="The same as `executor`.")] = []
    model: list[str] = []
    priority: Annotated[list[str], Meta(description="Names or numbers.")] = []
    tag: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="Without it what the filter says, or 50.")] | None = None
    after: Annotated[str, Meta(description="The `next` of the page before.")] | None = None
    payload: Annotated[bool, Meta(description="Whether tasks carry their payload.")] = True


SUBMIT_ERRORS: Final[tuple[type[InferqError], ...]] = (InvalidTask, PayloadTooLarge, DuplicateKey, QueueFull, RateLimited)
EXAMPLE: Final = {
    "executor": "echo",
    "action": "chat",
    "model": "echo-1",
    "payload": {"messages": [{"role": "user", "content": "Why is the sky blue?"}]},
    "priority": "high",
}


@route(
    "POST",
    "/api/tasks",
    role="submit",
    body=SubmitBody | list[SubmitBody],
    returns={201: (Submitted, Listing[Submitted]), 200: Submitted},
    errors=SUBMIT_ERRORS,
    headers=("Idempotency-Key",),
    examples={"one": EXAMPLE, "several": [EXAMPLE, EXAMPLE]},
)
async def submit(call: Call) -> Reply:
    """Keep a task, or a list of tasks all or none. It is durable when this answers. With a known idempotency key and the same body the
    first task is answered, with status 200."""
    body = call.body
    key = call.header_text("Idempotency-Key")
    mark = new_id() if key is not None or isinstance(body, list) or body.key is not None else ""
    if isinstance(body, list):
        if key is not None:
            raise InvalidRequest("expected it with one task, got a list: give each task its own `key`", parameter="Idempotency-Key")
        return Reply(Listing(await _submit_all(call, body, mark)), 201)
    try:
        submission = call.authorise(body.submission(_now(), streamed=_streamed, key=key))
        (handle,) = await call.queue.submit_many([submission])
    except InvalidTask as error:
        raise error.out_of("submissions[0]") from None
    made = await _submitted(call, submission, handle.id, mark)
    return Reply(made, 200 if made.known else 201, {"location": f"{call.root}/api/tasks/{made.id}"})


async def _submit_all(call: Call, given: list[SubmitBody], mark: str) -> list[Submitted]:
    submissions = []
    for index, body in enumerate(given):
        try:
            submissions.append(call.authorise(body.submission(_now(), streamed=_streamed)))
        except InvalidTask as error:
            raise error.within(f"submissions[{index}]") from None
    handles = await call.queue.submit_many(submissions)
    return [await _submitted(call, submission, handle.id, mark) for submission, handle in zip(submissions, handles, strict=True)]


async def _submitted(call: Call, submission: Submission, id: str, mark: str) -> Submitted:
    # Ids rise within a process: one from before this request belongs to a task that was known by its key.
    if submission.key is not None and id < mark:
        task = await call.queue.get(id)
        spec = task.spec
        return Submitted(id, id, task.state, spec.executor, spec.action, spec.model, task.priority, spec.scheduled_at, known=True)
    due = submission.scheduled_at
    state = State.SCHEDULED if due is not None and due > _now() else State.PENDING
    return Submitted(id, id, state, submission.executor, submission.action, submission.model, submission.priority, due)


def _streamed(action: str) -> bool:
    return action in STREAMED_ACTIONS


def _now() -> int:
    return _clock.read().wall


@route("GET", "/api/tasks", role="read", query=ListQuery, returns={200: Listing[TaskView]}, errors=(InvalidQuery,))
async def list_(call: Call) -> Reply:
    """List tasks, newest first unless the filter says otherwise. All that is given must hold. A page may be short, even empty, and still
    be followed by others: go on with `next` until it is null."""
    query: ListQuery = call.query
    where = _where(query, call.principal.tenant)
    limit = min(1000, where.limit or 50) if query.limit is None else query.limit
    page = await call.queue.list(where, limit=limit, after=_cursor(query.after))
    items = [task_view(task, payload=query.payload) for task in page.tasks]
    return Reply(Listing(items, None if page.after is None else str(page.after)))


def _where(query: ListQuery, tenant: str | None) -> Query:
    """What the filter and the parameters say together; a caller of a tenant sees that tenant's tasks only."""
    said = parse(query.q)
    given = Filter(
        states=(*query.state, *query.status),
        actions=(*query.action, *query.type),
        executors=(*query.executor, *query.executor_type),
        models=tuple(query.model),
        priorities=tuple(map(_priority, query.priority)),
        tenants=() if tenant is None else (tenant,),
        tag=query.tag,
    )
    return Query((*said.terms, *given.query().terms), said.sort, said.limit)


def _cursor(after: str | None) -> Cursor | None:
    try:
        return checked_cursor(after)
    except InvalidTask:
        raise InvalidRequest("expected the `next` of a page", parameter="after") from None


def _priority(text: str) -> int:
    try:
        return priority_number(text)
    except ValueError as error:
        raise InvalidRequest(str(error), parameter="priority") from None


@route("GET", "/api/tasks/{id}", role="read", query=WaitQuery, returns={200: TaskView, 304: None}, errors=(TaskNotFound,))
async def show(call: Call) -> Reply:
    """Show a task. With `wait`, answer when it has ended or the time is over, whichever is first. Honours If-None-Match."""
    task = await _task(call)
    if call.query.wait and not task.state.is_final:
        task = await _waited(call, task.id, min(call.query.wait, call.app.settings.max_wait))
    tag = etag(task)
    if _matches(call.raw_headers.get(b"if-none-match"), tag):
        return Reply(None, 304, {"etag": tag})
    return Reply(task_view(task), 200, {"etag": tag})


async def _task(call: Call) -> Task:
    """The task of the path, where it exists for this caller."""
    task = await call.queue.get(call.path["id"])
    require_visible(call.principal, task.id, task.flow.tenant)
    return task


def etag(task: Task) -> str:
    """Changes with everything that can change of a task."""
    marks = (task.attempt, task.failures, task.lost, task.priority, task.due or 0, task.started or 0, task.finished or 0)
    return f'"{task.state}-{"-".join(map(str, marks))}"'


def _matches(said: bytes | None, tag: str) -> bool:
    if said is None:
        return False
    return said.strip() == b"*" or tag.encode() in [part.strip().removeprefix(b"W/") for part in said.split(b",")]


async def _waited(call: Call, id: str, wait: float) -> Task:
    try:
        return await call.until_gone(call.queue.wait(id, timeout=wait))
    except WaitTimeout:
        return await call.queue.get(id)


@route(
    "GET",
    "/api/tasks/{id}/result",
    role="read",
    query=WaitQuery,
    returns={200: ShownResult},
    errors=(TaskNotFound, TaskFailed, TaskCancelled, WaitTimeout),
)
async def result(call: Call) -> Reply:
    """Give the result of a completed task. With `wait`, wait for it as long (408 when it has not ended by then: ask again)."""
    wait = min(call.query.wait, call.app.settings.max_wait)
    task = await _task(call)
    if not task.state.is_final:
        if not wait:
            raise WaitTimeout(f"task {task.id} has not ended: it is {task.state}; ask again later or with ?wait=30")
        return Reply((await call.until_gone(call.queue.result(task.id, timeout=wait))).shown())
    return Reply((await call.queue.result(task.id)).shown())


@route("GET", "/api/tasks/{id}/attempts", role="read", returns={200: Listing[ShownAttempt]}, errors=(TaskNotFound,))
async def attempts(call: Call) -> Reply:
    """List the ended attempts of a task, first to last."""
    task = await _task(call)
    return Reply(Listing([attempt.shown() for attempt in await call.queue.attempts(task.id)]))


@route("GET", "/api/tasks/{id}/why", role="read", returns={200: Waiting}, errors=(TaskNotFound,))
async def why(call: Call) -> Reply:
    """Say why a task waits: the gate that holds it, its position, an estimated start."""
    task = await _task(call)
    return Reply(await call.queue.explain(task.id))


@route(
    "POST",
    "/api/tasks/{id}/cancel",
    role="submit",
    body=ReasonBody,
    optional=True,
    returns={200: TaskView},
    errors=(TaskNotFound, WrongState),
    examples={"reason": {"reason": "asked again with another model"}},
)
async def cancel(call: Call) -> Reply:
    """Cancel a task. Waiting, it ends at once; running, it is fenced at once and the backend call closed."""
    return await _change(call, partial(call.queue.cancel, reason=call.body.reason))


@route(
    "POST",
    "/api/tasks/{id}/retry",
    role="submit",
    body=RetryBody,
    optional=True,
    returns={200: TaskView},
    errors=(TaskNotFound, WrongState, InvalidTask),
    examples={"urgent": {"priority": "high"}, "now": {"now": True}},
)
async def retry(call: Call) -> Reply:
    """Make a failed or cancelled task wait again, at another priority where one is given; with `now` also one that waits for its time."""
    authorise_again(call.principal, await _task(call))
    body: RetryBody = call.body
    level = None if body.priority is None else checked_priority(body.priority)
    if level is not None:
        check_priority(call.principal, level)
    return await _change(call, partial(call.queue.retry, priority=level, now=body.now))


@route(
    "POST",
    "/api/tasks/{id}/priority",
    role="submit",
    body=PriorityBody,
    returns={200: TaskView},
    errors=(TaskNotFound, WrongState),
    examples={"name": {"priority": "critical"}, "number": {"priority": 7}},
)
async def set_priority(call: Call) -> Reply:
    """Move a waiting task to another priority."""
    priority = checked_priority(call.body.priority)
    check_priority(call.principal, priority)
    return await _change(call, partial(call.queue.set_priority, priority=priority))


@route("DELETE", "/api/tasks/{id}", role="operator", returns={204: None}, errors=(TaskNotFound, WrongState))
async def delete(call: Call) -> Reply:
    """Remove an ended task with its result. There is no undo; a waiting or running task is refused: cancel it first."""
    await call.queue.delete((await _task(call)).id)
    return Reply(None, 204)


async def _change(call: Call, change: Callable[[str], Awaitable[None]]) -> Reply:
    id = (await _task(call)).id
    await change(id)
    task = await call.queue.get(id)
    return Reply(task_view(task), 200, {"etag": etag(task)})


@route("POST", "/api/pause", role="operator", body=ScopeBody, optional=True, returns={204: None}, errors=(InvalidTask,), tag="queue")
async def pause(call: Call) -> Reply:
    """Start no more tasks, in all lanes or in one. Running ones go on."""
    require_everything(call.principal)
    await call.queue.pause(call.body.scope)
    return Reply(None, 204)


@route("POST", "/api/resume", role="operator", body=ScopeBody, optional=True, returns={204: None}, errors=(InvalidTask,), tag="queue")
async def resume(call: Call) -> Reply:
    """Undo a pause of the same scope; of `*` also a drain."""
    require_everything(call.principal)
    await call.queue.resume(call.body.scope)
    return Reply(None, 204)


@route("POST", "/api/drain", role="operator", returns={204: None}, tag="queue")
async def drain(call: Call) -> Reply:
    """Take the queue out of service: no process starts a task, and /readyz answers 503. Running tasks go on, new ones are kept. Resume
    undoes it."""
    require_everything(call.principal)
    await call.queue.drain()
    return Reply(None, 204)


ROUTES: Final[list[Route]] = [submit, list_, show, result, attempts, why, cancel, retry, set_priority, pause, resume, drain, delete]
