"""The plain page at `/`: what runs here, its counts, and the addresses to paste into programs. Nothing is loaded from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Final

import inferq
from inferq.access import require_everything
from inferq.errors import Forbidden, Unauthenticated
from inferq.server.call import Call, Reply, Text
from inferq.server.route import Plain, Route, route
from inferq.server.stats import stats_view

_HTML: Final = "text/html; charset=utf-8"
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>inferq</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 0 0 1.5rem; }}
th, td {{ text-align: left; padding: .25rem 1.25rem .25rem 0; vertical-align: top; }}
th {{ font-weight: 600; }} td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
pre, code {{ font: 14px/1.5 ui-monospace, monospace; }}
pre {{ overflow-x: auto; padding: .75rem 1rem; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 6px; }}
</style>
</head>
<body>
<h1>inferq {version}</h1>
<p>The durable queue in front of your LLMs.</p>
<h2>Now</h2>
<table>
{counts}
</table>
<h2>Addresses</h2>
<table>
<tr><th scope="row">inferq</th><td><code>{base}</code></td></tr>
<tr><th scope="row">WebSocket</th><td><code>{socket}/ws</code></td></tr>
</table>
<h2>From a program</h2>
<pre>from inferq import connect

with connect("{base}") as queue:
    print(queue.chat("llama3.2", "Why is the sky blue?").result().text)</pre>
<h2>From a shell</h2>
<pre>curl -s {base}/api/tasks -H 'content-type: application/json' \\
  -d '{{"action": "chat", "model": "llama3.2", "payload": {{"messages": [{{"role": "user", "content": "hi"}}]}}}}'
inferq --url {base} list</pre>
<h2>More</h2>
<ul>
<li><a href="{root}/openapi.json">The API as OpenAPI 3.1</a></li>
<li><a href="{root}/api/status">Status</a>, <a href="{root}/api/executors">executors</a>,
<a href="{root}/api/tasks?limit=20&amp;payload=false">tasks</a></li>
<li><a href="{root}/readyz?verbose=1">Readiness</a>, <a href="{root}/metrics">metrics</a></li>
</ul>
</body>
</html>
"""


@route("GET", "/", role="read", open=True, returns={200: Plain(_HTML)}, tag="operators")
async def home(call: Call) -> Reply:
    """Show what runs here, in a browser. Where keys are configured, the counts are for who gives one."""
    counts = await _counts(call)
    base = escape(call.base, quote=True)
    page = _PAGE.format(
        version=escape(inferq.__version__),
        counts=counts,
        base=base,
        socket=base.replace("http", "ws", 1),
        root=escape(call.root, quote=True),
    )
    return Reply(Text(page.encode(), _HTML), 200, _HEADERS)


async def _counts(call: Call) -> str:
    try:
        principal = await call.app.authenticate(call)
        require_everything(principal)
    except (Unauthenticated, Forbidden):
        return "<tr><td>Counts are shown to who gives a key of this server.</td></tr>"
    stats = await stats_view(call.app)
    rows = [*stats.states.items(), ("slots free here", stats.workers_idle)]
    return "\n".join(f'<tr><th scope="row">{escape(name)}</th><td class="number">{number:,}</td></tr>' for name, number in rows)


ROUTES: Final[list[Route]] = [home]
