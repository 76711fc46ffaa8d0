"""Runs one function of a scenario in its own process and prints what it returns: `child.py MODULE FUNCTION '{"argument": ...}'`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys


def main() -> None:
    module, function, arguments = sys.argv[1:]
    call = getattr(importlib.import_module(module), function)
    made = call(**json.loads(arguments))
    print(json.dumps(asyncio.run(made) if inspect.iscoroutine(made) else made), flush=True)


if __name__ == "__main__":
    main()
