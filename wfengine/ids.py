"""Names that authors give to runs, by a template or a function. Those that are made up are in the journal's `names`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from wfengine_journal.errors import UsageError
from wfengine_journal.transitions import key_text

#: A longer name that a template or function gave is cut, in characters: the name is for people to say and type.
NAME_LIMIT = 500


def typed(run_id: int, name: str) -> str:
    """Return what a person types to mean this run: its name, or its id where a shell would stumble over the name."""
    plain = name.replace("-", "").replace("_", "").replace(".", "").isalnum() and not name.startswith("-")
    return name if plain else str(run_id)


def checked_run_name(name: object, option: str, owner: str) -> str | Callable[..., str] | None:
    """Return what a decorator was given as a run name; UsageError unless it is text, a function or None."""
    if name is None or isinstance(name, str) or callable(name):
        return name
    raise UsageError(f"{owner}: {option} must be a text or a function that returns one, not {type(name).__name__}.")


def render_name(name: str | Callable[..., str], arguments: Mapping[str, object], owner: str) -> str:
    """Return the run name that a template or function gives for these arguments; it may be empty.

    A function is called with what it has parameters for: all arguments in one dict for one named `parameters`, else those
    arguments whose names it has.
    """
    if callable(name):
        made: object = name(**_wanted(name, arguments, owner))
        if not isinstance(made, str):
            raise UsageError(f"The run name of {owner} must be a text; {_name_of(name)}() returned {type(made).__name__}.")
        return key_text(made)
    try:
        return key_text(name.format(**arguments))
    except (KeyError, IndexError, AttributeError, ValueError, TypeError) as error:
        raise UsageError(
            f"The run name {name!r} of {owner} does not fit its arguments ({type(error).__name__}: {error}). "
            f"It may use: {', '.join(arguments) or 'none'}."
        ) from error


def render_run_name(name: str | Callable[..., str], arguments: Mapping[str, object], owner: str) -> str | None:
    """Return the name as it is stored: cut where it is very long, None where nothing is left of it."""
    text = render_name(name, arguments, owner).strip()
    return (text if len(text) <= NAME_LIMIT else f"{text[: NAME_LIMIT - 3]}...") or None


def _wanted(fn: Callable[..., str], arguments: Mapping[str, object], owner: str) -> dict[str, object]:
    """Return what to call a naming function with. Raises UsageError when it needs what there is not."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return {}  # some functions written in C do not say; they are called without arguments
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(arguments)
    known = {"parameters": dict(arguments), **arguments}
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL and name not in known
    ]
    if missing:
        raise UsageError(
            f"The function that names {owner}, {_name_of(fn)}(), asks for {', '.join(missing)}. It may ask for `parameters` "
            f"(all arguments in one dict) and: {', '.join(arguments) or 'none'}."
        )
    return {name: known[name] for name in parameters if name in known}


def _name_of(fn: Callable[..., object]) -> str:
    return str(getattr(fn, "__name__", type(fn).__name__))
