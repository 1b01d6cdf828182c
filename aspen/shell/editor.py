"""The line editor of the prompt: keys, colours, history and the completion menu."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, has_completions
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers import PythonLexer

from aspen.errors import AspenError
from aspen.shell.client import NodeClient
from aspen.shell.evaluate import is_incomplete


class Cleared(Exception):
    """Ctrl-C at the prompt. Not KeyboardInterrupt, which would end the event loop when a task raises it."""


class NodeCompleter(Completer):
    """Asks the node what may stand at the cursor."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Nothing: a node can only be asked asynchronously."""
        return ()

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """What the node says; nothing when it does not answer."""
        try:
            found = await self._client.request("complete", text=document.text, cursor=document.cursor_position)
        except AspenError:
            return
        for item in found["items"]:
            yield Completion(
                item["text"], start_position=found["start"] - document.cursor_position, display_meta=item["meta"]
            )


def make_session(client: NodeClient, prompt: str, history_path: str | None) -> PromptSession[str]:
    """The editor, with `prompt` before the first line and dots before the others."""
    dots = "." * (len(prompt) - 1) + " "
    return PromptSession(
        prompt,
        multiline=True,
        lexer=PygmentsLexer(PythonLexer),
        history=FileHistory(history_path) if history_path is not None else InMemoryHistory(),
        completer=NodeCompleter(client),
        complete_while_typing=False,
        enable_history_search=True,
        prompt_continuation=lambda width, line, wrapped: " " * width if wrapped else dots,
        key_bindings=_keys(),
        enable_open_in_editor=True,
        interrupt_exception=Cleared,
    )


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @Condition
    def only_indentation_before_cursor() -> bool:
        return not get_app().current_buffer.document.current_line_before_cursor.strip()

    @Condition
    def a_completion_is_chosen() -> bool:
        state = get_app().current_buffer.complete_state
        return state is not None and state.current_completion is not None

    @keys.add("enter", filter=has_completions & a_completion_is_chosen)
    def _(event: Any) -> None:
        """Takes the completion."""
        event.current_buffer.complete_state = None

    @keys.add("enter", filter=~(has_completions & a_completion_is_chosen))
    def _(event: Any) -> None:
        """Runs what is complete; else begins a line, indented as it probably should be."""
        buffer = event.current_buffer
        document = buffer.document
        if document.text_after_cursor.strip() == "" and not is_incomplete(document.text):
            buffer.validate_and_handle()
            return
        line = document.current_line_before_cursor
        indent = line[: len(line) - len(line.lstrip())]
        buffer.insert_text("\n" + indent + ("    " if line.rstrip().endswith(":") else ""))

    @keys.add("escape", "enter")
    def _(event: Any) -> None:
        """Alt-Enter runs it as it is."""
        event.current_buffer.validate_and_handle()

    @keys.add("tab", filter=only_indentation_before_cursor & ~has_completions)
    def _(event: Any) -> None:
        """Indents."""
        event.current_buffer.insert_text("    ")

    return keys
