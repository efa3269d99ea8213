"""Inputs of flows that run, under the names Prefect gives them: `RunInput`, `send_input`, `receive_input`.

A `RunInput` is a pydantic model. A flow waits for one with `pause_flow_run(wait_for_input=Model)`; and instances can be sent to
a running flow, `Model(...).send_to(run)`, and received there, `for each in Model.receive(): ...`, as messages of a topic that
bears the model's name. In async code what is sent is awaited, and what is received comes by `async for`, or `await next()`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, cast

import pydantic

from wfengine.input_requests import Wanted
from wfengine.messages import OWN_TOPICS, checked_name, receive_from, send_to
from wfengine.own_calls import caller_awaits
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine_journal.errors import InvalidInputError, ReceiveTimeoutError, UsageError

T = TypeVar("T")

__all__ = ["GetInputHandler", "RunInput", "receive_input", "send_input"]


class RunInput(pydantic.BaseModel):
    """A model of what a running flow is given by people or by other flows."""

    #: Shown with the request, see `with_initial_data`.
    _description: ClassVar[str | None] = None
    #: The id of the flow run that sent this one; None: it was sent from outside of any.
    _sender: int | None = pydantic.PrivateAttr(default=None)

    @classmethod
    def with_initial_data(cls, description: str | None = None, **initial: object) -> type[Any]:
        """Return the model with defaults for some fields, and a description that is shown with the request."""
        for name in initial:
            if name not in cls.model_fields:
                raise UsageError(f"{cls.__name__} has no field '{name}'. It has: {', '.join(cls.model_fields)}.")
        fields: dict[str, Any] = {name: (cls.model_fields[name].annotation, value) for name, value in initial.items()}
        made: type[Any] = pydantic.create_model(cls.__name__, __base__=cls, __module__=cls.__module__, **fields)
        type.__setattr__(made, "_description", description)
        return made

    @property
    def sender(self) -> int | None:
        """Return the id of the flow run that sent it; None outside of any."""
        return self._sender

    def take_sender(self, sender: int | None) -> None:
        """Note which flow run sent it; for the engine."""
        self._sender = sender

    @asks_the_flow
    def send_to(self, flow_run_id: int | str, sender: object = None, key_prefix: str | None = None) -> Any:
        """Send it to a flow run, which receives it with `receive` of this class. `sender` does nothing: it is known."""
        return _send(self, flow_run_id, key_prefix, awaits=caller_awaits())

    @asks_the_flow
    def respond(self, run_input: object, sender: object = None, key_prefix: str | None = None) -> Any:
        """Send an answer to the flow run that sent this one. Raises UsageError where it was sent from outside of any."""
        if self._sender is None:
            raise UsageError(f"This {type(self).__name__} was not sent by a flow run, so there is nobody to respond to.")
        return _send(run_input, self._sender, key_prefix, awaits=caller_awaits())

    @classmethod
    def receive(
        cls, timeout: float | None = 3600, poll_interval: float = 10, raise_timeout_error: bool = False,
        key_prefix: str | None = None,
    ) -> GetInputHandler[Any]:  # fmt: skip
        """Return an iterator over what is sent to the present flow run; see `receive_input`."""
        return receive_input(cls, timeout, poll_interval, raise_timeout_error, key_prefix)


@asks_the_flow
def send_input(run_input: object, flow_run_id: int | str, sender: object = None, key_prefix: str | None = None) -> Any:
    """Send a RunInput, or a value of another type, to a flow run that says `receive_input` of its type."""
    return _send(run_input, flow_run_id, key_prefix, awaits=caller_awaits())


def receive_input(
    input_type: type[T], timeout: float | None = 3600, poll_interval: float = 10, raise_timeout_error: bool = False,
    key_prefix: str | None = None,
) -> GetInputHandler[T]:  # fmt: skip
    """Return an iterator over the inputs of a type that are sent to the present flow run, each waited for.

    It ends when none comes within `timeout` seconds (None: never), or then raises ReceiveTimeoutError. Each step is a call of
    the flow, recorded and replayed. `poll_interval` does nothing: nothing is polled.
    """
    return GetInputHandler(input_type, timeout, raise_timeout_error, _topic(input_type, key_prefix))


class GetInputHandler(Generic[T]):
    """Hands out inputs that were sent to a flow run: by `for`, `async for`, and `next()`."""

    def __init__(self, input_type: type[T], timeout: float | None, raise_timeout_error: bool, topic: str) -> None:
        self._wanted = Wanted(input_type)
        self._timeout = timeout
        self._raises = raise_timeout_error
        self._topic = topic

    def next(self) -> Any:
        """Wait for the next input and return it; in async code, it is awaited. Raises ReceiveTimeoutError."""
        return self._receive(awaits=caller_awaits())

    def __iter__(self) -> GetInputHandler[T]:
        return self

    def __next__(self) -> T:
        try:
            return cast(T, self._receive(awaits=False))
        except ReceiveTimeoutError:
            if self._raises:
                raise
            raise StopIteration from None

    def __aiter__(self) -> GetInputHandler[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return cast(T, await cast(Any, self._receive(awaits=True)))
        except ReceiveTimeoutError:
            if self._raises:
                raise
            raise StopAsyncIteration from None

    def _receive(self, *, awaits: bool) -> object:
        return receive_from(self._topic, self._timeout, awaits=awaits, convert=self._input_of)

    def _input_of(self, sent: object) -> object:
        value, sender = (sent["value"], sent.get("sender")) if isinstance(sent, dict) and "value" in sent else (sent, None)
        try:
            found = self._wanted.load(value)
        except InvalidInputError as error:
            raise InvalidInputError(f"What was sent on topic '{self._topic}' is no {self._wanted.name}: {error}") from error
        if isinstance(found, RunInput):
            found.take_sender(sender)
        return found


def _send(run_input: object, flow_run_id: int | str, key_prefix: str | None, *, awaits: bool) -> object:
    kind = type(run_input)
    scope = current_scope()
    sent = {"value": Wanted(kind).plain(run_input), "sender": None if scope is None else scope.run.id}
    return send_to(flow_run_id, sent, _topic(kind, key_prefix), None, awaits=awaits)


def _topic(input_type: type, key_prefix: str | None) -> str:
    name = key_prefix or f"{getattr(input_type, '__name__', str(input_type)).lower()}-auto"
    return f"{OWN_TOPICS}run_input:{checked_name(name, 'A key_prefix')}"
