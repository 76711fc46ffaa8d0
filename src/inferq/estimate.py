"""How many tokens a task may cost, before anybody counted: bytes of UTF-8 over 3.4, plus what a message's frame costs. Pure.

3.4 bytes a token lies between what common tokenizers reach on English prose (about 4.2) and on code and other languages (2.5 to 3.5):
it errs towards too many, which a budget forgives more easily than too few.
"""

from __future__ import annotations

from typing import Any, Final

from inferq.task import Size

TOKENS_PER_MESSAGE: Final = 4
"""Role and separators of one chat message in common templates."""
TOKENS_PER_IMAGE: Final = 765
"""A high-detail image of about a megapixel in OpenAI's accounting (85 + 170 x 4 tiles)."""
DEFAULT_OUTPUT_TOKENS: Final = 512
"""Assumed answer where the task sets no bound of its own."""
MEDIUM_FROM: Final = 15_000
LONG_FROM: Final = 75_000

_OUTPUT_BOUNDS = ("max_completion_tokens", "max_tokens", "num_predict", "max_output_tokens")
"""In order: of several bounds the first counts."""
_COUNTED = frozenset({"prompt", "system", "suffix", "template", "text", "input", "tools"})
_WITHOUT_ANSWER = frozenset({"embed", "execute", "request"})


def text_tokens(text: str) -> int:
    """Tokens of a text, rounded up; 0 for the empty one."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size * 5 // 17)  # size / 3.4 rounded up, exactly


def input_tokens(payload: dict[str, Any]) -> int:
    """Tokens that the payload puts in: messages (multimodal parts too), prompts, inputs, tools."""
    total = 0
    for name, value in payload.items():
        if name in _COUNTED:
            total += _tokens(value)
        elif name == "messages" and isinstance(value, list | tuple):
            total += sum(_message_tokens(message) for message in value)
        elif name == "images" and isinstance(value, list | tuple):
            total += TOKENS_PER_IMAGE * len(value)
    return total


def _message_tokens(message: Any) -> int:
    if not isinstance(message, dict):
        return TOKENS_PER_MESSAGE
    content = _tokens(message.get("content")) + _tokens(message.get("tool_calls"))
    return TOKENS_PER_MESSAGE + content + TOKENS_PER_IMAGE * len(message.get("images") or ())


def output_tokens(action: str, payload: dict[str, Any], options: dict[str, Any]) -> int:
    """Tokens that may come out: the task's own bound where it has one, else an assumption; nothing for embeddings, scripts, HTTP."""
    if action in _WITHOUT_ANSWER:
        return 0
    for source in (payload, options):
        if not source:
            continue
        for name in _OUTPUT_BOUNDS:
            bound = source.get(name)
            if isinstance(bound, int) and not isinstance(bound, bool) and bound > 0:
                return bound
    return DEFAULT_OUTPUT_TOKENS


def estimate(action: str, payload: dict[str, Any], options: dict[str, Any]) -> int:
    """Input plus output tokens of one attempt."""
    return input_tokens(payload) + output_tokens(action, payload, options)


def size_class(tokens: int) -> Size:
    """low under 15,000, medium under 75,000, else long."""
    if tokens < MEDIUM_FROM:
        return "low"
    return "medium" if tokens < LONG_FROM else "long"


def _tokens(value: Any) -> int:
    if isinstance(value, str):
        return text_tokens(value)
    if isinstance(value, list | tuple):
        return sum(_tokens(part) for part in value)
    if isinstance(value, dict):
        if value.get("type") in {"image_url", "image", "input_image"}:
            return TOKENS_PER_IMAGE
        return sum(text_tokens(str(key)) + _tokens(part) for key, part in value.items())
    if value is None or isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        return 1
    return 0
