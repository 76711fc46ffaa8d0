"""Queue and AsyncQueue are one interface: the same methods, the same parameters, the same answers."""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import Does, Gated, tuned

import inferq
from inferq import AsyncHandle, AsyncQueue, Call, Filter, Handle, Queue, State, TaskFailed, TaskResult
from inferq.errors import Reject, StoreClosed

PLUMBING = {"asynchronous", "begin", "call", "check_over_http", "keep", "store", "tell"}
"""How the two are built, not what they offer."""


def public(face: type) -> dict[str, Any]:
    return {
        name: value
        for cls in reversed(face.__mro__[:-1])
        for name, value in vars(cls).items()
        if not name.startswith("_") and name not in PLUMBING and not inspect.ismemberdescriptor(value)
    }


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each parameter."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(("plain", "asynchronous"), [(Queue, AsyncQueue), (Handle, AsyncHandle)])
def test_both_faces_have_the_same_methods(plain: type, asynchronous: type) -> None:
    assert sorted(public(plain)) == sorted(public(asynchronous))


METHODS = [
    pytest.param(getattr(plain, name), getattr(asynchronous, name), id=f"{plain.__name__}.{name}")
    for plain, asynchronous in ((Queue, AsyncQueue), (Handle, AsyncHandle))
    for name in sorted({*public(plain), "__init__"} & {*public(asynchronous), "__init__"})
    if callable(getattr(plain, name)) and not (plain is Handle and name == "__init__")
]


@pytest.mark.parametrize(("plain", "asynchronous"), METHODS)
def test_a_method_takes_the_same_parameters_on_both_faces(plain: Any, asynchronous: Any) -> None:
    assert parameters(plain) == parameters(asynchronous)


@pytest.mark.parametrize(("plain", "asynchronous"), [*METHODS, pytest.param(inferq.connect, inferq.aconnect, id="connect")])
def test_every_method_is_typed_and_has_a_word_of_documentation(plain: Any, asynchronous: Any) -> None:
    for method in (plain, asynchronous):
        signature = inspect.signature(method)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not inspect.Parameter.empty for name, p in signature.parameters.items() if name != "self")
        assert method.__doc__ or method.__name__ in ("__init__", "store_stats")


async def fate(call: Call) -> Any:
    if call.payload.get("fail"):
        raise Reject("as asked")
    return call.payload.get("n")


@pytest.fixture
def plain() -> Any:
    with Queue("sqlite://:memory:", backends=[Does(fate)], settings=tuned()) as queue:
        yield queue


def test_a_program_without_an_event_loop_submits_waits_and_asks(plain: Queue) -> None:
    handle = plain.submit("does", "work", payload={"n": 7}, stream=True)
    assert handle.result(timeout=10).data == 7
    assert handle.refresh().state is plain.wait(handle.id).state is State.COMPLETED
    assert [logged.chunk.kind for logged in handle.stream()] == ["end"]
    assert plain.resolve(handle.id[:-1]) == handle.id
    assert [task.id for task in plain.iterate(Filter(states=(State.COMPLETED,)))] == [handle.id]
    assert plain.stats().states["completed"] == 1
    assert [record.outcome for record in plain.attempts(handle.id)] == ["completed"]


def test_errors_are_raised_where_the_result_is_asked_for(plain: Queue) -> None:
    results = plain.batch([{"executor": "does", "action": "work", "payload": {"n": 1}}] * 2)
    failed = plain.submit("does", "work", payload={"fail": True})
    with pytest.raises(TaskFailed, match="as asked"):
        failed.result(timeout=10)
    assert [result.data for result in results if isinstance(result, TaskResult)] == [1, 1]


def test_callbacks_futures_and_events_work_without_a_loop_of_ones_own(plain: Queue) -> None:
    told, heard = threading.Event(), threading.Event()
    stop = plain.subscribe(lambda event: heard.set(), "task.completed")
    handle = plain.submit("does", "work", payload={"n": 1})
    handle.add_done_callback(lambda ended: told.set() if ended is handle else None)
    done, _ = concurrent.futures.wait([handle.future()], timeout=10)
    assert [future.result().data for future in done] == [1]
    assert told.wait(10)
    assert heard.wait(10)
    stop()
    assert next(iter(plain.events("task.completed", after=0))).type == "task.completed"


def test_many_threads_may_share_one_queue(plain: Queue) -> None:
    def ask(number: int) -> Any:
        return plain.submit("does", "work", payload={"n": number}).result(timeout=30).data

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(200))) == list(range(200))


def test_running_tasks_can_be_cancelled_retried_moved_and_paused(tmp_path: Path) -> None:
    gated = Gated()
    with Queue(str(tmp_path / "q.db"), backends=[gated], settings=tuned(slots=1)) as queue:
        queue.pause()
        handle = queue.submit("gated", "work", payload={"name": "a"})
        queue.set_priority(handle.id, "high")
        assert queue.paused() == {"*"}
        assert "paused" in queue.why(handle.id) == handle.explain().reason
        handle.set_priority("critical")
        assert (handle.refresh().priority, handle.attempts()) == (15, [])
        handle.set_priority("high")
        handle.cancel()
        handle.retry()
        assert handle.refresh().priority == 10
        queue.backup(tmp_path / "copy.db")
        assert queue.check() == []
        assert queue.store_stats().tasks == 1
    with Queue(str(tmp_path / "copy.db"), backends=[gated], work=False) as copy:
        assert copy.get(handle.id).state is State.PENDING


def test_a_closed_queue_says_so_and_can_be_opened_again(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "q.db"), backends=[Does(fate)], settings=tuned())
    with pytest.raises(StoreClosed, match="expected an open queue"):
        queue.stats()
    queue.start()
    id = queue.submit("does", "work", payload={"n": 3}).id
    assert queue.result(id, timeout=10).data == 3
    queue.close()
    queue.close()
    queue.start()
    assert queue.result(id).data == 3
    queue.close()


def test_a_store_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(inferq.StoreError):
        Queue(str(tmp_path), backends=[Does(fate)], settings=tuned()).start()
    assert set(threading.enumerate()) <= before


def test_connect_opens_a_queue_by_its_url(tmp_path: Path) -> None:
    with inferq.connect(str(tmp_path / "q.db"), work=False) as queue:
        id = queue.chat("m", "hello", executor="echo").id
    with inferq.connect(str(tmp_path / "q.db"), work=False) as queue:
        assert queue.get(id).spec.payload == {"messages": [{"role": "user", "content": "hello"}]}


def test_two_backends_of_one_name_are_an_error() -> None:
    with pytest.raises(inferq.ConfigError, match="does"):
        Queue("sqlite://:memory:", backends=[Does(fate), Does(fate)], settings=tuned()).start()


@pytest.mark.parametrize("how", ["a handle's callback", "a subscriber", "a batch's callback"])
def test_a_callback_may_ask_the_queue_that_called_it(how: str) -> None:
    queue = Queue("sqlite://:memory:", backends=[Does(fate)], settings=tuned())
    queue.start()
    answers: list[Any] = []
    told = threading.Event()

    def tell(id: str) -> None:
        answers.append(queue.result(id).data)
        told.set()

    wanted = {"executor": "does", "action": "work", "payload": {"n": 7}}
    if how == "a subscriber":
        queue.subscribe(lambda event: tell(event.task_id), "task.completed")  # type: ignore[union-attr]  # these have one
    if how == "a batch's callback":
        queue.batch_in_background([wanted], lambda results: tell(results[0].task_id))
    else:
        (handle,) = queue.submit_many([wanted])
        if how == "a handle's callback":
            handle.add_done_callback(lambda ended: tell(ended.id))
    assert told.wait(5), "the callback and the queue wait for each other"
    assert answers == [7]
    queue.close()


def test_who_follows_in_another_thread_is_told_when_the_queue_closes() -> None:
    gated = Gated()
    queue = Queue("sqlite://:memory:", backends=[gated], settings=tuned())
    queue.start()
    handle = queue.submit("gated", "work", payload={"name": "a"}, stream=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        reading, waiting = pool.submit(lambda: list(handle.stream())), pool.submit(handle.result)
        while not (queue.asynchronous._hub._streams and queue.asynchronous._hub._waiters):  # type: ignore[union-attr]  # it is open
            threading.Event().wait(0.005)
        queue.close(grace=0)
        for caller in (reading, waiting):
            with pytest.raises(StoreClosed):
                caller.result(timeout=10)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "http://127.0.0.1:7125"}, r"got the server 'http://127\.0\.0\.1:7125'; a program asks it with connect\(\)"),
        ({"url": "localhost:7125"}, "looks like a server's address; write http://localhost:7125"),
        ({"url": "sqlite:///queue.lan:7125"}, "write http://queue.lan:7125"),
        ({"url": "q.db", "settings": "inferq.toml"}, r"expected Settings, got str; inferq\.config\.load"),
    ],
)
def test_what_was_meant_for_another_door_is_said_and_makes_no_file(
    wrong: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(inferq.ConfigError, match=said):
        Queue(**{"settings": tuned(), **wrong}).start()
    assert list(tmp_path.iterdir()) == []
