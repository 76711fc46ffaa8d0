"""Cron expressions: five fields to the next time they fire, in any zone, over clock changes. Pure: no clock, no I/O.

Day rule as in Vixie cron: where day of month and day of week are both restricted (neither begins with `*`), either may match, else
both must. Where minute or hour begins with `*` the expression is an *interval*: it fires at each real minute whose local time
matches, so twice in an hour that the clocks repeat and not in one that they leave out. All others name *fixed times*: one that does
not exist fires at the next minute that does, and one that is repeated fires once, the first time.
"""

from __future__ import annotations

from inferq.cron.expression import MACROS, Cron, CronError, parse
from inferq.cron.times import fires, next_fire, zone
from inferq.cron.words import describe

__all__ = ["MACROS", "Cron", "CronError", "describe", "fires", "next_fire", "parse", "zone"]
