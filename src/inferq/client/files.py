"""Writes what a server sends into a new file: whole, or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from inferq.errors import StoreError


async def save_new(path: Path, pieces: AsyncIterator[bytes]) -> None:
    """The pieces as a file that did not exist. Raises StoreError for one that does, or that cannot be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    if await asyncio.to_thread(path.exists):
        raise StoreError(f"expected the path of a new file, got {path}, which exists")
    try:
        with beside.open("xb") as out:
            async for piece in pieces:
                await asyncio.to_thread(out.write, piece)
            await asyncio.to_thread(os.fsync, out.fileno())
        os.link(beside, path)  # unlike a rename, it does not replace a file that came meanwhile
    except FileExistsError:
        raise StoreError(f"expected the path of a new file, got {path}, which exists") from None
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
