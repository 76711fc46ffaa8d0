"""Keys, roles, and what a key's bounds do to a submission."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.access import (
    LOCAL,
    ROLES,
    Principal,
    authorise,
    bearer_in,
    check_pattern,
    check_priority,
    digest_of,
    id_in,
    may,
    new_key,
    require,
    require_everything,
    require_visible,
    same_digest,
)
from inferq.errors import Forbidden, InvalidTask, TaskNotFound, Unauthenticated
from inferq.task import Submission

names = st.text("abcz-:3.", max_size=8)


def key_of(**fields: Any) -> Principal:
    return Principal(**({"id": "k1", "name": "ci", "role": "submit"} | fields))


def submission(**fields: Any) -> Submission:
    return Submission(**({"executor": "ollama", "action": "chat", "model": "qwen3"} | fields))


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_names_its_id_and_only_its_digest_is_kept() -> None:
    made = new_key()
    prefix, id, secret = made.text.split("_")
    assert (prefix, id) == ("iq", made.id)
    assert len(secret) == 32
    assert secret not in made.digest
    assert same_digest(digest_of(made.text), made.digest)
    assert id_in(made.text) == made.id


def test_keys_differ_and_so_do_their_digests() -> None:
    made = [new_key() for _ in range(200)]
    assert len({key.id for key in made}) == len({key.text for key in made}) == len({key.digest for key in made}) == 200


@given(st.text())
def test_any_text_is_either_a_key_with_an_id_or_none(text: str) -> None:
    id = id_in(text)
    assert id is None or text.startswith(f"iq_{id}_")
    assert len(digest_of(text)) == 64


@pytest.mark.parametrize("text", ["", "iq", "iq_", "iq__x", "iq_a", "iq_a_", "sk_a_b", "iq_ü_b", f"iq_{'a' * 65}_b"])
def test_what_is_no_key_has_no_id(text: str) -> None:
    assert id_in(text) is None


def test_a_key_is_read_from_either_header() -> None:
    assert bearer_in({"authorization": "Bearer iq_a_b"}) == "iq_a_b"
    assert bearer_in({"authorization": "bearer  iq_a_b "}) == "iq_a_b"
    assert bearer_in({"x-api-key": "iq_a_b"}) == "iq_a_b"
    assert bearer_in({}) is None
    for other in ("Basic YTpi", "iq_a_b", "Bearer "):
        with pytest.raises(Unauthenticated) as refused:
            bearer_in({"authorization": other})
        assert "YTpi" not in str(refused.value)


# ── roles ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_role_includes_those_before_it() -> None:
    for mine, role in enumerate(ROLES):
        for theirs, asked in enumerate(ROLES):
            assert may(key_of(role=role), asked) == (mine >= theirs)
    with pytest.raises(Forbidden, match="role operator or above, but key 'ci' has role submit"):
        require(key_of(), "operator")
    require(LOCAL, "admin")


def test_another_tenants_task_is_answered_like_one_that_does_not_exist() -> None:
    require_visible(key_of(tenant="a"), "id-1", "a")
    require_visible(key_of(role="read"), "id-1", "b")
    with pytest.raises(TaskNotFound) as hidden:
        require_visible(key_of(tenant="a"), "id-1", "b")
    assert "tenant" not in str(hidden.value)
    assert "'b'" not in str(hidden.value)


def test_what_concerns_everybody_is_not_for_a_tenants_key() -> None:
    require_everything(key_of(role="operator"))
    with pytest.raises(Forbidden, match="belongs to tenant 'a' only"):
        require_everything(key_of(role="operator", tenant="a"))


# ── submissions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_submission_gets_the_tenant_of_its_key() -> None:
    assert authorise(key_of(tenant="team-a"), submission()).tenant == "team-a"
    assert authorise(key_of(tenant="team-a"), submission(tenant="team-a")).tenant == "team-a"
    assert authorise(LOCAL, submission(tenant="anybody")).tenant == "anybody"


@given(names, names.filter(bool))
def test_nobody_can_name_another_tenant(mine: str, named: str) -> None:
    principal, asked = key_of(tenant=mine), submission(tenant=named)
    if named == mine:
        assert authorise(principal, asked).tenant == mine
    else:
        with pytest.raises(Forbidden, match="leave the tenant out"):
            authorise(principal, asked)


@given(st.integers(-(2**63), 2**63 - 1), st.none() | st.integers(-100, 100))
def test_a_priority_above_the_ceiling_is_refused_and_never_lowered(priority: int, ceiling: int | None) -> None:
    principal, asked = key_of(max_priority=ceiling), submission(priority=priority)
    if ceiling is None or priority <= ceiling:
        assert authorise(principal, asked).priority == priority
        check_priority(principal, priority)
        return
    with pytest.raises(Forbidden, match="the ceiling of key 'ci'"):
        authorise(principal, asked)
    with pytest.raises(Forbidden):
        check_priority(principal, priority)


@pytest.mark.parametrize(
    ("models", "asked", "fine"),
    [
        ((), {"model": "anything"}, True),
        (("qwen3*",), {"model": "qwen3:8b"}, True),
        (("qwen3",), {"model": "qwen3:8b"}, False),
        (("qwen3*", "llama3"), {"model": "llama3"}, True),
        (("qwen3*",), {"model": "llama3"}, False),
        (("qwen3*",), {"model": ""}, False),
        (("*",), {"model": ""}, True),
        (("qwen3*",), {"payload": {"model": "gpt-5"}}, False),
        (("qwen3*",), {"payload": {"models": ["qwen3:1b", "gpt-5"]}}, False),
        (("qwen3*",), {"payload": {"fallbacks": [{"model": "gpt-5"}]}}, False),
        (("qwen3*",), {"options": {"model": "gpt-5"}}, False),
        (("qwen3*",), {"payload": {"options": {"model": "gpt-5"}}}, False),
        (("qwen3*",), {"payload": {"models": ["qwen3:1b"]}}, True),
        (("qwen3*",), {"payload": {"extra_body": {"model": "gpt-5"}}}, False),
        (("qwen3*",), {"options": {"extra_body": {"fallbacks": ["gpt-5"]}}}, False),
        (("qwen3*",), {"payload": {"fallbacks": [{"qwen3:8b": ["gpt-5"]}]}}, False),
        (("qwen3*",), {"payload": {"context_window_fallbacks": [{"qwen3:8b": ["qwen3:1b"]}]}}, True),
        (("qwen3*",), {"payload": {"content_policy_fallbacks": {"qwen3:8b": "gpt-5"}}}, False),
        (("qwen3*",), {"payload": {"fallbacks": [{"model": "qwen3:1b", "messages": [{"role": "user", "content": "gpt-5"}]}]}}, True),
        (("qwen3*",), {"payload": {"draft_model": "gpt-5"}}, False),
        (("qwen3*",), {"payload": {"tools": [{"type": "image_generation", "model": "gpt-5"}]}}, False),
        (("qwen3*",), {"payload": {"plugins": [{"id": "web", "deep": [[{"Model": "gpt-5"}]]}]}}, False),
        (("qwen3*",), {"payload": {"messages": [{"role": "user", "content": "model", "model": "talked about"}]}}, True),
        (("qwen3*",), {"payload": {"tools": [{"function": {"parameters": {"properties": {"model": {"enum": ["gpt-5"]}}}}}]}}, True),
        (("qwen3*",), {"payload": {"format": {"properties": {"model": {"const": "T-Ford"}}}}}, True),
    ],
)
def test_only_the_models_of_a_key_are_asked_wherever_they_are_named(models: tuple[str, ...], asked: dict[str, Any], fine: bool) -> None:
    principal = key_of(models=models)
    if fine:
        authorise(principal, submission(**asked))
        return
    with pytest.raises(Forbidden, match="one of the models of key 'ci'"):
        authorise(principal, submission(**asked))


def test_only_the_executors_of_a_key_are_asked() -> None:
    authorise(key_of(executors=("ollama", "open*")), submission(executor="openai"))
    with pytest.raises(Forbidden, match=r"one of the executors of key 'ci' \(ollama\), got 'script'"):
        authorise(key_of(executors=("ollama",)), submission(executor="script"))


@pytest.mark.parametrize("executor", ["http", "script"])
def test_a_key_bounded_to_models_has_no_executor_that_may_reach_any_unless_it_is_named(executor: str) -> None:
    with pytest.raises(Forbidden, match="a key may use it whose executors name it"):
        authorise(key_of(models=("qwen3*",)), submission(executor=executor, model="qwen3"))
    assert authorise(key_of(models=("qwen3*",), executors=(executor,)), submission(executor=executor, model="qwen3"))


def test_reading_is_not_submitting_and_a_schedule_is_set_by_schedules_only() -> None:
    with pytest.raises(Forbidden, match="role submit or above"):
        authorise(key_of(role="read"), submission())


@pytest.mark.parametrize("pattern", ["", "*a", "a*b*", "a\nb"])
def test_a_pattern_has_its_star_at_the_end_only(pattern: str) -> None:
    with pytest.raises(InvalidTask, match="beginning of one"):
        check_pattern(pattern, "models")
    assert check_pattern("qwen3*", "models") == "qwen3*"
