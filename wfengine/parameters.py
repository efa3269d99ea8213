"""Parameters of a decorated function: binding a call to names, fitting values to type hints, reading the command line.

A `Parameters` is built once, at decoration; a call then costs about a microsecond. pydantic is imported only when a
value does not already fit its hint. This module runs no user function, other than the validators that a user's own
types bring along, and writes nothing.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any

from wfengine.hints import Check, Hint, UnfitError, is_field, is_future
from wfengine.references import holds_late, revealed
from wfengine_journal.errors import (
    ParameterBindError,
    ParameterTypeError,
    ReservedArgumentError,
    SignatureMismatchError,
    UsageError,
)
from wfengine_journal.guarding import hide

#: Characters of a value or signature that an error shows.
PREVIEW_CHARACTERS = 80
SIGNATURE_CHARACTERS = 300

_Kind = inspect.Parameter
_NOT_JSON = object()


class Parameters:
    """The parameters of one function. Safe to use from any thread."""

    def __init__(
        self, fn: Callable[..., object], *, owner: str, reserved: Collection[str] = (), left_out: Collection[str] = ()
    ) -> None:
        """Read the signature of `fn`. `owner` names it in errors: "task 'load'". Raises UsageError.

        `left_out` are parameters that the engine fills in, and no caller.
        """
        self.owner = owner
        self.signature = _signature_of(fn, owner)
        if left_out:
            kept = [parameter for name, parameter in self.signature.parameters.items() if name not in left_out]
            self.signature = self.signature.replace(parameters=kept)
        self.names: tuple[str, ...] = tuple(self.signature.parameters)
        self._fn = fn
        self._refuse_reserved(reserved)
        self._kinds = {name: parameter.kind for name, parameter in self.signature.parameters.items()}
        self._defaults = _defaults_of(self.signature)
        self._fields = {name: default for name, default in self._defaults.items() if is_field(default)}
        self._positional_count = sum(kind <= _Kind.POSITIONAL_OR_KEYWORD for kind in self._kinds.values())
        self._only_positional = self._positional_count == len(self.names)
        self._tails = self._default_tails()
        self._hints: dict[str, Hint] | None = None
        self._plan: tuple[tuple[str, type | None, Check], ...] | None = None

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        """Return all arguments by name in the order of the signature, defaults applied.

        `*args` is a tuple and `**kwargs` a dict under its own name. Raises ParameterBindError, which names everything
        that is missing, unexpected or given twice.
        """
        given = len(args)
        # Functions with *args, **kwargs or positional-only parameters have no tails and take the slow way.
        if given < len(self._tails):
            if kwargs:
                named = self._bind_named(args, kwargs)
                if named is not None:
                    return named
            else:
                tail = self._tails[given]
                if tail is not None:
                    bound = dict(zip(self.names, args))  # noqa: B905 - `strict=` alone costs a tenth of the call
                    if tail:
                        bound.update(tail)
                    return bound
        return self._bind_unusual(args, kwargs)

    def unbind(self, arguments: dict[str, object]) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return the `(args, kwargs)` that call the function with these arguments.

        Arguments recorded before a parameter with a default was added get that default. Raises SignatureMismatchError
        when they do not fit the function any more.
        """
        if tuple(arguments) != self.names:
            arguments = self._completed(arguments)
        if self._only_positional:
            return tuple(arguments.values()), {}
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for name, kind in self._kinds.items():
            value = arguments[name]
            if kind is _Kind.VAR_POSITIONAL:
                args.extend(typing.cast("Iterable[object]", value))
            elif kind is _Kind.VAR_KEYWORD:
                kwargs.update(typing.cast("Mapping[str, object]", value))
            elif kind is _Kind.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def coerce(self, arguments: dict[str, object]) -> dict[str, object]:
        """Fit bound arguments to the type hints; return the very same dict when all of them fit already.

        A value that fits keeps its identity; any other is converted by pydantic in lax mode. Futures and states, and
        values whose hint is absent or cannot be resolved, stay as they are. Of a container the first elements are
        looked at, see `hints`. Raises ParameterTypeError that names every argument that does not fit.
        """
        plan = self._plan
        if plan is None:
            plan = self._plan = self._make_plan()
        unfit: list[str] | None = None
        for name, exact, fits in plan:
            value = arguments[name]
            if type(value) is exact or fits(value) or is_future(value) or holds_late(value):
                continue
            if unfit is None:
                unfit = []
            unfit.append(name)
        return arguments if unfit is None else self._coerce_unfit(arguments, unfit)

    def opened(self, arguments: dict[str, object]) -> dict[str, object]:
        """Return arguments as the function takes them: with the values of secrets, unless its hint is Secret or absent.

        Raises SecretError, and ParameterTypeError where a value does not fit.
        """
        if not any(map(holds_late, arguments.values())):
            return arguments
        hints = self.hints()
        late = {name for name, value in arguments.items() if name in hints and holds_late(value) and not hints[name].takes_late}
        shown = {name: revealed(value) if name in late else value for name, value in arguments.items()}
        return self._coerce_unfit(shown, sorted(late))

    def from_text(self, texts: dict[str, str]) -> dict[str, object]:
        """Return keyword arguments from `name=text` pairs of a command line, for `bind` and `coerce`.

        A text is read as JSON when it is JSON and the value fits the hint; a parameter hinted `str` keeps its text.
        Raises SignatureMismatchError for unknown names.
        """
        self._refuse_unknown(texts)
        hints = self.hints()
        variable = next((name for name, kind in self._kinds.items() if kind is _Kind.VAR_KEYWORD), None)
        values: dict[str, object] = {}
        for name, text in texts.items():
            hint = hints.get(name if self._is_nameable(name) else variable or name)
            values[name] = _value_of_text(text, hint)
        return values

    # Binding

    def _default_tails(self) -> tuple[dict[str, object] | None, ...]:
        """Return, by number of positional arguments, the defaults that complete them; None where one is missing."""
        if self._fields or not set(self._kinds.values()) <= {_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY}:
            return ()
        tails: list[dict[str, object] | None] = []
        for given in range(self._positional_count + 1):
            rest = self.names[given:]
            complete = all(name in self._defaults for name in rest)
            tails.append({name: self._defaults[name] for name in rest} if complete else None)
        return tuple(tails)

    def _bind_named(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object] | None:
        """Bind a plain call that names some arguments; None when it is not a correct one."""
        bound = dict(zip(self.names, args))  # noqa: B905 - as in `bind`
        used = 0
        for name in self.names[len(args) :]:
            if name in kwargs:
                bound[name] = kwargs[name]
                used += 1
            elif name in self._defaults:
                bound[name] = self._defaults[name]
            else:
                return None
        return bound if used == len(kwargs) else None

    def _bind_unusual(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            problems = self._binding_problems(args, kwargs) or [str(error)]
            raise ParameterBindError(self._sentence(problems)) from error
        bound.apply_defaults()
        if len(bound.arguments) != len(self.names):
            # Python 3.13.0 binds f(a, /, **kwargs) to f(a=0) and leaves `a` out; the call itself would not do that.
            raise ParameterBindError(self._sentence(self._binding_problems(args, kwargs)))
        arguments = dict(bound.arguments)
        return self._with_field_defaults(arguments) if self._fields else arguments

    def _with_field_defaults(self, arguments: dict[str, object]) -> dict[str, object]:
        """Put in the place of a pydantic.Field(...) the default that it holds."""
        missing = [name for name, field in self._fields.items() if arguments[name] is field and field.is_required()]
        if missing:
            raise ParameterBindError(self._sentence([f"missing argument {name!r}" for name in missing]))
        for name, field in self._fields.items():
            if arguments[name] is field:
                arguments[name] = field.get_default(call_default_factory=True)  # a new list for each call
        return arguments

    def _binding_problems(self, args: tuple[object, ...], kwargs: dict[str, object]) -> list[str]:
        """Say everything that is wrong with a call that did not bind."""
        kinds = self._kinds
        positional = self.names[: self._positional_count]
        filled = set(positional[: len(args)])
        named = {name for name in kwargs if self._is_nameable(name)}
        problems = [
            f"missing argument {name!r}"
            for name, kind in kinds.items()
            if name not in self._defaults
            and kind not in (_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD)
            and name not in filled | named
        ]
        problems += [f"argument {name!r} was given twice" for name in kwargs if name in filled & named]
        if _Kind.VAR_KEYWORD not in kinds.values():
            problems += [self._unexpected(name) for name in kwargs if name not in named]
        if len(args) > len(positional) and _Kind.VAR_POSITIONAL not in kinds.values():
            problems.append(f"{len(args)} positional arguments where it takes at most {len(positional)}")
        return problems

    def _unexpected(self, name: str) -> str:
        if self._kinds.get(name) is _Kind.POSITIONAL_ONLY:
            return f"argument {name!r} can only be given by position"
        return f"unexpected argument {name!r}{_did_you_mean(name, filter(self._is_nameable, self.names))}"

    def _is_nameable(self, name: str) -> bool:
        return self._kinds.get(name) in (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY)

    def _completed(self, arguments: dict[str, object]) -> dict[str, object]:
        """Return the arguments in the order of the signature, with defaults for those that are not there."""
        problems = [
            f"there is an argument {name!r} but no such parameter{_did_you_mean(name, self.names)}"
            for name in arguments
            if name not in self._kinds
        ]
        known = {**_empty_variables(self._kinds), **self._defaults, **arguments}
        problems += [f"missing argument {name!r}" for name in self.names if name not in known]
        if problems:
            raise SignatureMismatchError(self._sentence(problems))
        return self._with_field_defaults({name: known[name] for name in self.names})

    def _sentence(self, problems: list[str]) -> str:
        return f"{self.owner}: {'; '.join(problems)}. Its signature is {self._signature_text()}."

    def _signature_text(self) -> str:
        text = f"{getattr(self._fn, '__name__', 'function')}{self.signature}"
        return text if len(text) <= SIGNATURE_CHARACTERS else f"{text[: SIGNATURE_CHARACTERS - 3]}..."

    def _refuse_reserved(self, reserved: Collection[str]) -> None:
        taken = [name for name in self.names if name in reserved]
        if taken:
            raise ReservedArgumentError(
                f"{self.owner} has a parameter named {taken[0]!r}, a name that wfengine itself uses in calls "
                f"(reserved: {', '.join(sorted(reserved))}). Rename the parameter."
            )

    def _refuse_unknown(self, texts: Mapping[str, str]) -> None:
        if _Kind.VAR_KEYWORD in self._kinds.values():
            return
        problems = [self._unexpected(name) for name in texts if not self._is_nameable(name)]
        if problems:
            raise SignatureMismatchError(self._sentence(problems))

    # Coercing

    def _make_plan(self) -> tuple[tuple[str, type | None, Check], ...]:
        """Return (name, class whose instances fit at a glance, check) of every parameter that has a usable hint."""
        plan: list[tuple[str, type | None, Check]] = []
        for name, hint in self.hints().items():
            kind = self._kinds[name]
            if hint.fits is None:
                continue
            if kind is _Kind.VAR_POSITIONAL:
                plan.append((name, None, _elements_fit(hint)))
            elif kind is _Kind.VAR_KEYWORD:
                plan.append((name, None, _values_fit(hint)))
            else:
                plan.append((name, hint.exact, hint.fits))
        return tuple(plan)

    def hints(self) -> dict[str, Hint]:
        """Return the hints that could be resolved. Lazy: a hint may name a class defined below the function."""
        if self._hints is None:
            self._hints = {name: Hint(hint) for name, hint in _hints_of(self._fn, self.signature).items()}
        return self._hints

    def _coerce_unfit(self, arguments: dict[str, object], unfit: list[str]) -> dict[str, object]:
        coerced = dict(arguments)
        problems: list[str] = []
        cause: Exception | None = None
        for name in unfit:
            hint = self.hints()[name]
            converted: dict[object, object] = {}
            for label, key, value in _parts(name, self._kinds[name], arguments[name]):
                try:
                    converted[key] = hint.convert(value)
                except UnfitError as error:
                    cause = cause or error.cause
                    problems.append(hide(f"{label} = {_preview(value)} does not fit {hint}: {error.reason}"))
            coerced[name] = _whole(self._kinds[name], converted)
        if problems:
            listed = f" {problems[0]}" if len(problems) == 1 else "\n  " + "\n  ".join(problems)
            raise ParameterTypeError(f"{self.owner}:{listed}\nPass a value that fits, or change the type hint.") from cause
        return coerced


def _signature_of(fn: Callable[..., object], owner: str) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):
            # Annotations are evaluated on demand there; names that do not exist yet must not fail the decoration.
            from annotationlib import Format

            return inspect.signature(fn, annotation_format=Format.FORWARDREF)
        return inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{owner}: the parameters of {fn!r} cannot be read ({error}). Decorate a function written with `def`."
        ) from error


def _defaults_of(signature: inspect.Signature) -> dict[str, object]:
    parameters = signature.parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not _Kind.empty}


def _empty_variables(kinds: Mapping[str, object]) -> dict[str, object]:
    """Return what `*args` and `**kwargs` are bound to when nothing is given for them."""
    empty: dict[str, object] = {}
    for name, kind in kinds.items():
        if kind is _Kind.VAR_POSITIONAL:
            empty[name] = ()
        elif kind is _Kind.VAR_KEYWORD:
            empty[name] = {}
    return empty


def _hints_of(fn: Callable[..., object], signature: inspect.Signature) -> dict[str, object]:
    """Resolve the annotations one by one, so that a name that cannot be found costs only its own parameter."""
    inner = inspect.unwrap(fn)
    inner = getattr(inner, "func", inner)  # functools.partial
    if not hasattr(inner, "__globals__") and not hasattr(inner, "__func__"):
        inner = type(inner).__call__
    names = getattr(inner, "__globals__", {})
    type_parameters = getattr(inner, "__type_params__", ())
    hints: dict[str, object] = {}
    for parameter in signature.parameters.values():
        if parameter.annotation is _Kind.empty:
            continue
        holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation}, __type_params__=type_parameters)
        try:
            resolved = typing.get_type_hints(holder, globalns=names, include_extras=True)
        except Exception:  # An annotation is user code: it may name anything, or be no type at all.
            continue
        for name, hint in resolved.items():
            hints[name] = Annotated[hint, parameter.default] if is_field(parameter.default) else hint
    return hints


def _parts(name: str, kind: object, value: Any) -> list[tuple[str, object, object]]:
    """Return (label for errors, key, value) of what one hint applies to: each item of `*args` and `**kwargs`."""
    if kind is _Kind.VAR_POSITIONAL:
        return [(f"parameter '{name}[{index}]'", index, item) for index, item in enumerate(value)]
    if kind is _Kind.VAR_KEYWORD:
        return [(f"parameter {key!r}", key, item) for key, item in value.items()]
    return [(f"parameter {name!r}", name, value)]


def _whole(kind: object, converted: dict[object, object]) -> object:
    """Put together again what `_parts` took apart."""
    if kind is _Kind.VAR_POSITIONAL:
        return tuple(converted.values())
    if kind is _Kind.VAR_KEYWORD:
        return converted
    return next(iter(converted.values()), None)


def _elements_fit(hint: Hint) -> Check:
    check = hint.fits or (lambda _item: True)
    return lambda value: all(check(item) for item in typing.cast("Iterable[object]", value))


def _values_fit(hint: Hint) -> Check:
    check = hint.fits or (lambda _item: True)
    return lambda value: all(check(item) for item in typing.cast("Mapping[str, object]", value).values())


# Texts


def _value_of_text(text: str, hint: Hint | None) -> object:
    """Choose between the text and what it means as JSON, by which of them the hint takes."""
    if hint is not None and hint.keeps_text():
        return text
    parsed = _parsed_json(text)
    if parsed is _NOT_JSON:
        return text
    if hint is None or hint.fits is None or hint.fits(parsed):
        return parsed
    if isinstance(parsed, list | dict):
        return parsed if hint.accepts(parsed) else text
    # A text keeps what a JSON number loses (Decimal '1.10'), so it goes first.
    return parsed if not hint.accepts(text) and hint.accepts(parsed) else text


def _parsed_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _preview(value: object) -> str:
    import reprlib  # as above

    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = PREVIEW_CHARACTERS
    text = shortener.repr(value)
    return text if len(text) <= PREVIEW_CHARACTERS else f"{text[: PREVIEW_CHARACTERS - 3]}..."


def _did_you_mean(name: str, candidates: Iterable[str]) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(name, list(candidates), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def known_options(decorator: str, options: Mapping[str, object], defaults: Mapping[str, object]) -> Mapping[str, object]:
    """Return the options of a decorator; UsageError names those it does not have, and lists those it has."""
    unknown = set(options) - set(defaults)
    if unknown:
        raise UsageError(f"{decorator} has no option {', '.join(sorted(unknown))}. Its options are: {', '.join(defaults)}.")
    return options
