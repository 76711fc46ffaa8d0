"""An executor in a package of its own: `pip install` it and `inferq executors` lists it."""

from inferq.errors import InvalidTask
from inferq.executor import Executor


class Shout(Executor):
    """Says it louder. Setting `mark`: what to put at the end."""

    actions = ("shout",)
    required = {"shout": ("text",)}
    description = "Says it louder."

    def validate(self, action, model, payload):
        if not isinstance(payload["text"], str):
            raise InvalidTask("expected a text", field="payload.text")

    async def run(self, call):
        return {"text": call.payload["text"].upper() + self.settings.get("mark", "!")}
