"""`inferq keys` and `inferq audit`."""

from __future__ import annotations

from typing import Any


def test_a_key_is_made_shown_once_listed_and_revoked(cli: Any) -> None:
    made = cli("keys", "create", "team-a", "--max-priority", "high", "--model", "qwen3*,llama3", "--expires", "90d", "-o", "json")
    assert made.code == 0, made.err
    secret = made.json["secret"]
    assert secret.startswith(f"iq_{made.json['id']}_")
    assert (made.json["tenant"], made.json["max_priority"], made.json["models"]) == ("team-a", 10, ["qwen3*", "llama3"])
    assert "not shown again" in made.err
    listed = cli("keys", "list", "-o", "json")
    assert [key["state"] for key in listed.json] == ["valid"]
    assert secret.rpartition("_")[2] not in listed.out + cli("keys", "show", "team-a").out
    assert cli("keys", "create", "team-a").code == 6
    assert cli("keys", "revoke", "team-a").code == 0
    assert cli("keys", "list", "--json=name,state").json == [{"name": "team-a", "state": "revoked"}]
    assert cli("keys", "revoke", "team-a", "--forget").code == 0
    assert cli("keys", "list", "-q").lines == []


def test_quiet_prints_the_secret_alone(cli: Any) -> None:
    made = cli("keys", "create", "me", "--role", "admin", "-q")
    (secret,) = made.lines
    assert secret.startswith("iq_")


def test_a_typing_error_revokes_nothing(cli: Any) -> None:
    cli("keys", "create", "a")
    wrong = cli("keys", "revoke", "a", "b")
    assert wrong.code == 5
    assert "'b'" in wrong.err
    assert cli("keys", "list", "--json=state").json == [{"state": "valid"}]


def test_limits_are_set_one_by_one_and_lifted(cli: Any) -> None:
    assert cli("keys", "create", "team-a", "--concurrency", "2").code == 0
    assert cli("keys", "limit", "team-a", "--max-queued", "9", "-o", "json").json == {"tenant": "team-a", "concurrency": 2, "max_queued": 9}
    assert cli("keys", "limit", "team-a", "--concurrency", "none", "-o", "json").json["concurrency"] is None
    assert cli("keys", "limits", "-o", "json").json == [{"tenant": "team-a", "concurrency": None, "max_queued": 9}]
    assert cli("keys", "limit", "team-a", "--concurrency", "lots").code == 2
    assert cli("keys", "create", "boss", "--role", "admin", "--concurrency", "2").code == 2


def test_an_empty_audit_log_is_an_empty_list(cli: Any) -> None:
    assert cli("audit", "-o", "json").json == []
