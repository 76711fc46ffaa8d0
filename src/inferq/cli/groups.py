"""How commands look and load: groups that import a verb only when it is used, help with examples first and exit codes last."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from inferq.cli.exits import MEANING, Exit

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

_NEGATED = re.compile(r'-(?:"|[A-Za-z_][\w.-]*:)')
"""A condition of the filter language that must not hold."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Verb(NamedTuple):
    """A command that is not imported yet: `target` is `module:attribute`, `short` its one line, `section` its place in help."""

    target: str
    short: str
    section: str = "Commands"


class _Completed(click.types.StringParamType):
    """A text whose values the shell completes."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from inferq.cli.complete import complete

        return complete(ctx, param, incomplete)


_COMPLETED = _Completed()


class Command(click.Command):
    """A command whose help shows examples first, then options by section, the fields of its records, and its exit codes."""

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        exits: tuple[Exit, ...] = (),
        fields: tuple[str, ...] = (),
        **attrs: Any,
    ) -> None:
        from inferq.cli.app import global_options  # the options hold App, and App the way commands run

        attrs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **attrs)
        self.examples = [line.strip() for line in examples.strip().splitlines()]
        self.exits = (Exit.OK, *exits, Exit.USAGE)
        self.fields = fields
        taken = {name for param in self.params for name in (*param.opts, *param.secondary_opts)}
        self.params += [option for option in global_options(hidden=True) if not taken & set(option.opts)]
        for param in self.params:
            if param.type is click.STRING:
                param.type = _COMPLETED

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _attached(self.params, args))

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                _write_lines(formatter, self.examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        # `--help` is added by click without a section: last of the first heading.
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.fields:
            with formatter.section("Fields (--json=...)"):
                formatter.write_text(" ".join(self.fields))
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), MEANING[code]) for code in sorted(set(self.exits))])
        formatter.write_paragraph()
        formatter.write_text("Global options (--url, --config, --verbose, --debug, ...) work here too: see `inferq --help`.")


class QueryCommand(Command):
    """Takes words of the filter language: `-tag:test` is a condition, not options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        valued = _valued(self.params)
        options: list[str] = []
        words: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                words += rest
            elif _NEGATED.match(arg):
                words.append(arg)
            else:
                options.append(arg)
                if arg in valued and (value := next(rest, None)) is not None:
                    options.append(value)
        return super().parse_args(ctx, [*options, "--", *words] if words else options)


class LazyGroup(click.Group):
    """A group that knows its verbs by name and imports one only when it is used; its help imports none."""

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], aliases: Mapping[str, str] | None = None, **attrs: Any) -> None:
        from inferq.cli.app import global_options

        attrs.setdefault("context_settings", CONTEXT)
        self.examples = [line.strip() for line in str(attrs.pop("examples", "")).strip().splitlines()]
        super().__init__(*args, **attrs)
        if not self.params:
            self.params += global_options(hidden=True)
        self.verbs = verbs
        self.aliases = aliases or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _attached(self.params, args, leading=True))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        verb = self.verbs.get(self.aliases.get(cmd_name, cmd_name))
        if verb is None:
            return None
        module, _, attribute = verb.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        known = [*self.verbs, *self.aliases]
        if name not in known and not name.startswith("-"):
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
            path = ctx.command_path
            hint = f"did you mean `{path} {near[0]}`?" if near else f"`{path} --help` lists the commands"
            raise click.UsageError(f"no command is called {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                _write_lines(formatter, self.examples)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, verb in self.verbs.items():
            also = [alias for alias, target in self.aliases.items() if target == name]
            sections.setdefault(verb.section, []).append((", ".join((name, *also)), verb.short))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _write_lines(formatter: click.HelpFormatter, lines: list[str]) -> None:
    # Examples are commands: wrapping would break them.
    for line in lines:
        formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def _attached(params: list[click.Parameter], args: list[str], *, leading: bool = False) -> list[str]:
    """`--json` alone becomes `--json=`: its value is optional, and only an attached one counts, so `show --json ID` works. With
    `leading` only those before the first word are looked at."""
    valued, optional = _valued(params), _optional(params)
    made: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--" or (leading and not arg.startswith("-")):
            return [*made, arg, *rest]
        made.append(f"{arg}=" if arg in optional else arg)
        if arg in valued and (value := next(rest, None)) is not None:
            made.append(value)
    return made


def _valued(params: list[click.Parameter]) -> set[str]:
    """Options that take the next argument as their value."""
    return {
        name for param in params if isinstance(param, click.Option) and not param.is_flag and not param.count for name in param.opts
    } - _optional(params)


def _optional(params: list[click.Parameter]) -> set[str]:
    """Options whose value may be left out: their help shows it as `[=VALUE]`."""
    return {name for param in params if (param.metavar or "").startswith("[=") for name in param.opts}
