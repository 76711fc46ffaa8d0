"""The filter language: what it reads is what it prints, what it says is what it finds, and what is wrong is named with its place."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.errors import InvalidQuery
from inferq.query import FIELDS, Anything, At, Away, Between, Compare, Day, Query, Term, Text, asked_text, matches, parse, search
from inferq.query.reading import KNOWN_CODES, KNOWN_STATES
from inferq.query.words import OPS, SORTS
from inferq.task import SIZES, FlowKey, State, Submission, Task, lane_of

NOW = 1_790_000_000_000


def task(**changes: Any) -> Task:
    spec_names = set(Submission.__struct_fields__)
    spec: dict[str, Any] = {"executor": "ollama", "action": "chat", "model": "qwen3:8b", "payload": {"prompt": "Why is the sky blue?"}}
    own: dict[str, Any] = {"id": "019ab3c4-d5e6-7f01-8000-000000000001", "seq": 1, "state": State.PENDING, "created": NOW - 60_000}
    flow = {"priority": 5, "size": "low", "tenant": ""}
    for name, value in changes.items():
        (flow if name in flow else spec if name in spec_names else own)[name] = value
    submission = Submission(**spec)
    key = FlowKey(lane_of(submission.executor, submission.model, submission.backend), flow["priority"], flow["size"], flow["tenant"])
    return Task(flow=key, spec=submission, **own)


def passes(text: str, **changes: Any) -> bool:
    return matches(task(**changes), search(parse(text), NOW))


# ── reading and printing ────────────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
moments = st.one_of(
    st.integers(-62_135_596_800_000, 253_402_300_799_999).map(At),
    st.dates(date(1, 1, 1), date(9999, 12, 31)).map(lambda day: Day(day.isoformat())),
    st.integers(-(10**12), 10**12).map(Away),
)
numbers = st.integers(-(2**63), 2**63 - 1)
durations = st.integers(0, 10**12)
POINTS: dict[str, st.SearchStrategy[Any]] = {"time": moments, "number": numbers, "priority": numbers, "duration": durations}


def values_of(name: str) -> st.SearchStrategy[Any]:
    kind = FIELDS[name].kind if name in FIELDS else "text"
    if kind in POINTS:
        points = POINTS[kind]
        spans = st.tuples(points, points)
        if kind != "time":
            spans = spans.map(lambda pair: (min(pair), max(pair)))
        return st.one_of(st.builds(Compare, st.sampled_from(OPS), points), spans.map(lambda pair: Between(*pair)), st.just(Anything()))
    closed = {"state": KNOWN_STATES, "size": SIZES, "code": KNOWN_CODES}.get(kind)
    if closed:
        return st.one_of(
            st.sampled_from(closed).map(Text), st.sampled_from(closed).map(lambda word: Text(word[:1], True)), st.just(Anything())
        )
    if kind == "id":
        return texts.map(lambda text: Text(text.lower(), True))
    return st.one_of(st.builds(Text, texts, st.booleans()), st.just(Anything()))


names = st.one_of(st.sampled_from(sorted(FIELDS)), texts.filter(bool).map(lambda key: f"meta.{key}"))
field_terms = names.flatmap(
    lambda name: st.builds(Term, st.just(name), st.lists(values_of(name), min_size=1, max_size=4).map(tuple), st.booleans())
)
word_terms = st.builds(Term, st.just(""), st.tuples(st.builds(Text, texts.filter(bool), st.booleans())), st.booleans())
queries = st.builds(
    Query,
    st.lists(st.one_of(field_terms, word_terms), max_size=6).map(tuple),
    st.one_of(st.none(), st.sampled_from(SORTS)),
    st.one_of(st.none(), st.integers(1, 10_000)),
)


@given(queries)
def test_what_is_printed_reads_as_the_same_filter(query: Query) -> None:
    assert parse(str(query)) == query


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_a_filter_or_an_error_with_a_place(text: str) -> None:
    try:
        query = parse(text)
    except InvalidQuery as wrong:
        error = wrong
    else:
        assert parse(str(query)) == query
        return
    assert error.position is not None
    assert 0 <= error.position <= len(text)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        ("  state:failed   model:qwen3* ", "state:failed model:qwen3*"),
        ("status:FAILED,Cancelled type:chat", "state:failed,cancelled action:chat"),
        ("class:long cron:daily code:timeout due:<+1h", "size:long schedule:daily error:timeout scheduled:<+1h"),
        ("priority:>=10 -tag:test", "priority:>=high -tag:test"),
        ("priority:-3..5", "priority:-3..normal"),
        ("tokens:4000..", "tokens:>=4000"),
        ("tokens:..4000", "tokens:<=4000"),
        ("wait:>90 run:1.5", "wait:>90s run:1500ms"),
        ("created:>-120m", "created:>-2h"),
        ("created:2026-11-21T10:00:00+02:00", "created:2026-11-21T08:00:00Z"),
        ("created:1790000000000", "created:2026-09-21T14:13:20Z"),
        ("created:2026-11-20..2026-11-21", "created:2026-11-20..2026-11-21"),
        ('meta.customer:42 meta."a b":x', 'meta.customer:42 meta."a b":x'),
        ('tag:"a, b",c', 'tag:"a, b",c'),
        ('tag:"night "*', 'tag:"night "*'),
        ('-"exact words" sky', '-"exact words" sky'),
        ('say "a \\"b\\""', 'say "a \\"b\\""'),
        ("id:019AB3*", "id:019ab3*"),
        ("sort:created limit:5", "sort:created limit:5"),
        ("key:*", "key:*"),
        ('"OR" or', '"OR" or'),
    ],
)
def test_a_filter_is_printed_with_the_fields_own_names_and_one_spelling(text: str, printed: str) -> None:
    assert str(parse(text)) == printed


@pytest.mark.parametrize("word", ["OR", "AND", "NOT"])
def test_words_of_other_filter_languages_are_no_silent_search(word: str) -> None:
    with pytest.raises(InvalidQuery, match=f"got {word}") as caught:
        parse(f"tag:x {word} tag:y")
    assert caught.value.position == 6


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("modle:x", 0, "did you mean model?"),
        ("state:failed tgs:x", 13, "did you mean tags?"),
        ("user:x", 0, "did you mean tenant?"),
        ("http://example.org", 0, "put it in quotes"),
        ("state:faild", 6, "cancelled, waiting, ended, got 'faild'; did you mean failed?"),
        ("state:failed,", 13, "expected a value right after state:"),
        ("model:", 6, "model:* finds those that have any"),
        ("model:a*b", 7, "only at the end"),
        ("model:>x", 6, "only numbers, times and priorities are compared"),
        ('tag:"open', 4, "closing"),
        ('tag:"a"b', 7, "expected a blank before the next condition"),
        ("tokens:many", 7, "expected a whole number, got 'many'"),
        ("tokens:>", 8, "expected a whole number right after >"),
        ("tokens:9..1", 7, "the smaller one"),
        ("tokens:..", 7, "on one side"),
        ("priority:hihg", 9, "did you mean high?"),
        ("created:2h", 8, "did you mean -2h (7200 s ago)?"),
        ("created:yesterday", 8, "expected a time such as -2h, 2026-11-21"),
        ("created:2026-11-21T10:00:00", 8, "with its zone"),
        ("created:2026-13-01", 8, "month"),
        ("wait:>soon", 6, "expected a duration"),
        ("error:nope", 6, "rate_limited"),
        ("class:huge", 6, "low, medium, long"),
        ("sort:tokens", 5, "-created"),
        ("sort:created sort:created", 18, "once"),
        ("-limit:5", 7, "without '-'"),
        ("limit:0", 6, "from 1 to 10000"),
        ("a - b", 2, "right after '-'"),
        ("*", 0, "expected a field before '*'"),
        ('""', 0, "between the quotes"),
        ("a\x00", 1, "NUL"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, position: int, said: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse(text)
    assert caught.value.position == position
    assert said in str(caught.value)
    assert f"character {position + 1} " in str(caught.value)


def test_a_filter_is_bounded() -> None:
    for text in ("a" * 10_001, " ".join(["a"] * 101), "tag:" + ",".join("abcd"[n % 4] for n in range(1001))):
        with pytest.raises(InvalidQuery, match="at most"):
            parse(text)


def test_other_orders_than_that_of_arrival_need_the_states_that_are_kept_so() -> None:
    for text in ("sort:-finished state:ended", "sort:finished state:failed", "sort:scheduled state:scheduled"):
        assert search(parse(text), NOW).sort == text.split()[0].removeprefix("sort:")
    for text in ("sort:finished", "sort:-finished state:failed,running", "sort:finished -state:failed", "sort:scheduled state:waiting"):
        with pytest.raises(InvalidQuery, match="expected state:"):
            search(parse(text), NOW)


# ── what it says ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", {}),
        ("id:019AB3C4", {}),
        ("019ab3c4-d5", {}),
        ("SKY blu", {}),
        ('"the sky"', {}),
        ("state:pending,failed", {}),
        ("state:waiting", {"state": State.SCHEDULED, "due": NOW}),
        ("state:ended", {"state": State.CANCELLED, "finished": NOW}),
        ("model:qwen3*", {}),
        ("model:other,qwen3:8b", {}),
        ('model:""', {"model": ""}),
        ("backend:gpu", {"backend": "gpu"}),
        ("executor:ollama action:chat tenant:acme size:long", {"tenant": "acme", "size": "long"}),
        ("priority:>=high", {"priority": 10}),
        ("priority:low..normal", {}),
        ("priority:1,5", {}),
        ("tag:night* tag:b", {"tags": ["a", "b", "nightly"]}),
        ("tag:*", {"tags": ["a"]}),
        ("-tag:*", {}),
        ("-tag:test -model:llama*", {"tags": ["a"]}),
        ("meta.customer:42", {"metadata": {"customer": 42}}),
        ("meta.customer:42", {"metadata": {"customer": "42"}}),
        ("meta.paid:true", {"metadata": {"paid": True}}),
        ("meta.a.b:x", {"metadata": {"a": {"b": "x"}}}),
        ("meta.a.b:x", {"metadata": {"a.b": "x"}}),
        ("meta.list:2", {"metadata": {"list": [1, 2]}}),
        ("meta.a:*", {"metadata": {"a": {"b": 1}}}),
        ("batch:b1 schedule:daily key:k*", {"batch": "b1", "schedule": "daily", "key": "k1"}),
        ("error:rate*", {"code": "rate_limited"}),
        ("-error:timeout", {}),
        ("attempt:0", {}),
        ("created:-2m", {}),
        ("created:>-2m created:<now", {}),
        ("created:>=2026-09-21", {}),
        ("created:2026-09-21", {}),
        ("started:*", {"started": NOW}),
        ("-started:*", {}),
        ("finished:<=now", {"finished": NOW, "state": State.FAILED}),
        ("scheduled:+1h", {"due": NOW + 60_000, "state": State.SCHEDULED}),
        ("deadline:<+10m", {"deadline": NOW + 60_000}),
        ("wait:1m", {}),
        ("wait:..30s", {"started": NOW - 40_000}),
        ("run:40s", {"started": NOW - 40_000, "state": State.RUNNING}),
        ("run:<30s", {"started": NOW - 40_000, "finished": NOW - 20_000, "state": State.COMPLETED}),
        ("-run:*", {"started": NOW - 40_000}),
        ("tokens:>4000", {"estimate": 4001}),
    ],
)
def test_a_filter_finds(text: str, changes: dict[str, Any]) -> None:
    asked = {name: value for name, value in changes.items() if name != "estimate"}
    made = task(**asked)
    if "estimate" in changes:
        made.estimate = changes["estimate"]
    assert matches(made, search(parse(text), NOW))


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("id:119ab3c4", {}),
        ("green", {}),
        ("-blue", {}),
        ("user", {"payload": {"messages": [{"role": "user", "content": "hello"}]}}),
        ("state:failed", {}),
        ("model:qwen", {}),
        ("model:*", {"model": ""}),
        ("priority:>normal", {}),
        ("tag:night*", {"tags": ["a"]}),
        ("meta.customer:42", {}),
        ("error:*", {}),
        ("created:>-30s", {}),
        ("created:2026-09-20", {}),
        ("started:<now", {}),
        ("batch:*", {}),
        ("deadline:*", {}),
        ("tokens:>0 tag:x", {}),
    ],
)
def test_a_filter_leaves_out(text: str, changes: dict[str, Any]) -> None:
    assert not passes(text, **changes)


def test_a_day_is_all_of_its_milliseconds() -> None:
    midnight = 1_790_035_200_000
    for text, expected in (
        ("created:2026-09-22", [False, True, True, False]),
        ("created:>2026-09-22", [False, False, False, True]),
        ("created:>=2026-09-22", [False, True, True, True]),
        ("created:<2026-09-22", [True, False, False, False]),
        ("created:<=2026-09-22", [True, True, True, False]),
    ):
        found = [passes(text, created=ms) for ms in (midnight - 1, midnight, midnight + 86_399_999, midnight + 86_400_000)]
        assert found == expected, text


def test_the_preview_of_what_was_asked_is_its_texts_and_bounded() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}, {"image_url": "x"}]},
    ]
    assert asked_text(Submission("e", "chat", payload={"messages": messages})) == "Be brief.\nWhy?"
    assert len(asked_text(Submission("e", "chat", payload={"prompt": "x" * 5000}))) == 2000
    assert asked_text(Submission("e", "embed", payload={"input": ["a", "b"], "images": ["c"]})) == "a\nb"
