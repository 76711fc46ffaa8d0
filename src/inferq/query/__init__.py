"""The filter language: one parser, one printer, and what decides whether a task passes. Pure; the page docs/filters.md shows it.

`state:failed model:qwen3* -tag:test created:>-2h "exact words"` is one.
"""

from inferq.query.fields import FIELDS, META, TABLE, Field, field_named
from inferq.query.matching import asked_text, matches
from inferq.query.reading import LARGEST_LIMIT, parse
from inferq.query.resolving import search
from inferq.query.words import Anything, At, Away, Between, Compare, Day, Query, Search, Sort, Term, Test, Text
from inferq.query.writing import written

__all__ = [
    "FIELDS",
    "LARGEST_LIMIT",
    "META",
    "TABLE",
    "Anything",
    "At",
    "Away",
    "Between",
    "Compare",
    "Day",
    "Field",
    "Query",
    "Search",
    "Sort",
    "Term",
    "Test",
    "Text",
    "asked_text",
    "field_named",
    "matches",
    "parse",
    "search",
    "written",
]
