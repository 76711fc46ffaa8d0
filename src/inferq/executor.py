"""What a backend is asked and what it answers, and the contract of an executor: `run` is all a plugin must write.

Words only: no I/O, no clock, nothing of the queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, ClassVar, Literal

import msgspec

from inferq.errors import ExecutorError, Reject

JSON = None | bool | int | float | str | list[Any] | dict[str, Any]
"""A decoded JSON value."""

ChunkKind = Literal["text", "thinking", "tool_calls", "stdout", "stderr", "data", "reset", "end"]


class Chunk(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One piece of a result while it streams.

    `text` (answer), `thinking`, `stdout` and `stderr` carry `text`; `tool_calls` and `data` carry `data`.
    The queue itself writes `reset` (a new attempt begins: forget what came before; `data` is {"attempt", "reason"}) and, once,
    `end` (the terminal record; `text` is the task's final state). Executors never yield those two.
    """

    kind: ChunkKind
    text: str = ""
    data: Any = None


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Tokens as the backend counted them; None where it did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        """Of the prompt and of the answer; None where the backend said neither."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)


def tokens_of(said: object) -> int | None:
    """A count of tokens as a backend says it; None for what cannot be one. No call has as many as 2**40, and sums of more overflow."""
    return said if type(said) is int and 0 <= said < 1 << 40 else None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the backend answered, in one shape whatever the backend; `raw` keeps its own last object.

    `text` is the whole answer of chat and generate (and a script's stdout), `message` the assistant's message with tool calls,
    `embeddings` one vector an input, `data` any other JSON value. `finish_reason` uses OpenAI's words (stop, length, tool_calls...).
    """

    text: str | None = None
    message: dict[str, Any] | None = None
    embeddings: list[list[float]] | None = None
    data: Any = None
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    raw: Any = None


class Call(msgspec.Struct, frozen=True):
    """What an executor is asked to do, once.

    `payload` is the action's own fields, `options` the model's (temperature, num_ctx...). `timeout` and `idle_timeout` (seconds)
    are enforced by the engine; they are told so that an executor can pass them on. `stream` says that somebody may be watching.
    """

    task_id: str
    action: str
    model: str
    payload: dict[str, Any]
    options: dict[str, Any] = {}
    attempt: int = 1
    timeout: float | None = None
    idle_timeout: float | None = None
    stream: bool = True
    metadata: dict[str, Any] = {}


class Health(msgspec.Struct, frozen=True):
    """Whether a backend can work now; `detail` is one line for people. `answered` says of one that is not ok that it is there all the
    same: its tasks are tried, and fail with the reason, while those of a backend that does not answer wait."""

    ok: bool
    detail: str = ""
    answered: bool = False


Produced = AsyncIterator[Chunk | Answer] | Awaitable[Answer | JSON]
"""What `run` gives back: a stream of chunks that ends with one Answer, or an awaitable of an Answer or of any JSON value."""


class Executor:
    """Speaks to one kind of backend. Subclass it and write `run`; every other method is an optional hook that is really called.

    Register the class under the entry-point group `inferq.executors`; the entry's name is the executor's name. One instance is
    made for each configured backend: `name` is the backend's, `settings` its mapping from the configuration (or keyword arguments).

        class Shout(Executor):
            actions = ("shout",)
            required = {"shout": ("text",)}

            async def run(self, call):
                return {"text": call.payload["text"].upper()}
    """

    actions: ClassVar[tuple[str, ...]] = ()
    """Every action that `run` knows; submitting another is refused."""
    required: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Per action, the payload fields that must be present; checked at submit, before `validate`."""
    needs_model: ClassVar[bool] = False
    """True where a task without `model` must be refused at submit."""
    description: ClassVar[str] = ""
    """One line for `inferq executors`."""
    over_http: ClassVar[bool | None] = None
    """Whether tasks that come over HTTP may run on it. True: it only speaks to its own server, whatever a task says. False: only where
    its backend's setting `over_http` says so. None: there too, and where a program itself handed it to its queue."""
    dialect: ClassVar[str] = ""
    """Whose words its payloads speak (`ollama`, `openai`), where that is known; so that tasks of one can be run on the other."""
    address: str | None = None
    """The server that it calls, without credentials; None where there is no such single place. Tells whether it is remote."""

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.settings: dict[str, Any] = dict(settings or {})

    def run(self, call: Call) -> Produced:
        """Make the call.

        Either an async generator that yields `Chunk`s and, last, exactly one `Answer` (a stream that ends without it is a
        failure), or a coroutine that returns an `Answer` or any JSON value (kept as `Answer.data`). Raise `RetryLater`,
        `Unavailable` or `Reject` to say how it failed; anything else goes through `classify`. When the task is cancelled or timed
        out the running coroutine is cancelled: close the backend call in `finally`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define run(call)")

    async def open(self) -> None:
        """Called once before the first call, in the engine's event loop."""

    async def close(self) -> None:
        """Called once when the engine stops; must be safe without `open`."""

    def validate(self, action: str, model: str, payload: dict[str, Any]) -> None:
        """Called at submit, possibly in a process that never runs tasks: raise `InvalidTask(message, field=...)` when wrong."""

    def confine(self) -> None:
        """Called once, before tasks may come over HTTP because a setting says so: from now on do only what the settings name, for every
        task; raise `ConfigError` where they name nothing."""

    def estimate(self, action: str, payload: dict[str, Any]) -> int | None:
        """Called at submit: tokens (input plus output) this call may cost; None leaves it to `inferq.estimate`."""
        return None

    async def preprocess(self, call: Call) -> Call:
        """Called before each `run`: may return a changed call."""
        return call

    async def postprocess(self, call: Call, answer: Answer) -> Answer:
        """Called after each successful `run`: may return a changed answer."""
        return answer

    def classify(self, error: Exception) -> ExecutorError | Answer | None:
        """Called for an exception that is not an `ExecutorError`: say what it means, answer in its stead, or None for `internal`."""
        return None

    async def health(self) -> Health:
        """Asked by `doctor` and health checks; must not cost money."""
        return Health(ok=True)

    async def loaded(self) -> list[str] | None:
        """Names of the models that are in the backend's memory now; None when it cannot say."""
        return None

    keeps_models: ClassVar[bool] = False
    """Whether its models are in the memory of the process that runs its tasks, so that another one cannot load them for it."""

    async def load_model(self, model: str, *, keep: float | None = None) -> None:
        """Bring a model into memory and return when it is there; `keep` is for how many seconds without a task. Raises ExecutorError."""
        raise Reject(f"{self.name}: its executor cannot load models: what is in memory is the backend's own business")

    async def unload_model(self, model: str) -> None:
        """Take a model out of memory. Raises ExecutorError."""
        raise Reject(f"{self.name}: its executor cannot unload models: what is in memory is the backend's own business")

    async def models(self) -> list[str]:
        """Names of the models this backend can run now; empty when it has no such notion."""
        return []
