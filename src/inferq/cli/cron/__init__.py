"""`inferq cron`: tasks that come again at set times."""

from __future__ import annotations

from inferq.cli.groups import LazyGroup, Verb

_CHANGE, _ASK = "Change", "Ask"

cron = LazyGroup(
    "cron",
    verbs={
        "add": Verb("inferq.cli.cron.edit:add", "Add a schedule.", _CHANGE),
        "update": Verb("inferq.cli.cron.edit:update", "Change a schedule.", _CHANGE),
        "enable": Verb("inferq.cli.cron.edit:enable", "Let schedules fire, from now on.", _CHANGE),
        "disable": Verb("inferq.cli.cron.edit:disable", "Let schedules fire no more.", _CHANGE),
        "remove": Verb("inferq.cli.cron.edit:remove", "Remove schedules; their tasks go on.", _CHANGE),
        "run": Verb("inferq.cli.cron.edit:run", "Make a schedule's task now.", _CHANGE),
        "apply": Verb("inferq.cli.cron.apply:apply", "Make the schedules be those of a file.", _CHANGE),
        "list": Verb("inferq.cli.cron.ask:list_", "List schedules.", _ASK),
        "show": Verb("inferq.cli.cron.ask:show", "Show everything about one schedule.", _ASK),
        "history": Verb("inferq.cli.cron.ask:history", "List the tasks that a schedule made.", _ASK),
        "test": Verb("inferq.cli.cron.ask:test", "Say when an expression fires next.", _ASK),
    },
    aliases={"ls": "list", "rm": "remove"},
    help="Tasks that come again at set times.\n\nAny process that works on the queue makes them: see `inferq work`.",
    examples="""
        inferq cron add --name daily --schedule "0 9 * * 1-5" --model qwen3 --prompt "Summary of {scheduled_at:%Y-%m-%d}"
        inferq cron test "0 9 * * 1-5" --tz Europe/Berlin
        inferq cron list
    """,
    no_args_is_help=True,
)
