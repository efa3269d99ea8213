"""Type hints: whether a value fits one, and what pydantic makes of a value that does not.

pydantic is imported only when a value does not already fit. A check never uses up a generator, never looks at more
than the first elements of a container, and leaves futures and states alone. Nothing here knows about functions.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeGuard, TypeVar

from wfengine.references import Late, holds_late

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic.fields import FieldInfo

#: Elements of a container that are looked at, by depth. The rest is taken on trust: checking a long list in full
#: would cost more than the call, and hints are a help here, not a proof.
ELEMENTS_CHECKED = (1000, 10, 10)

#: pydantic's reasons shown for one value; a list of a thousand wrong items has a thousand.
REASONS_SHOWN = 3

Check = Callable[[object], bool]
_ELEMENT_MODULES = frozenset({"builtins", "collections", "collections.abc"})
_VALIDATING_MODULES = frozenset({"annotated_types", "pydantic", "pydantic_core"})


class UnfitError(Exception):
    """A value that pydantic could not fit to a hint."""

    def __init__(self, reason: str, cause: Exception) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause


class Hint:
    """One type hint: whether a value fits it, and what pydantic makes of one that does not."""

    def __init__(self, hint: object) -> None:
        self.hint = hint
        self.fits = _guarded_check(hint)
        self.takes_late = _takes_late(hint)  # a Secret as it is, and not its value
        self.exact = hint if isinstance(hint, type) else None
        self._adapters: list[TypeAdapter[object]] | None = None

    def __str__(self) -> str:
        return inspect.formatannotation(self.hint)

    def convert(self, value: object) -> object:
        """Return the value fitted to the hint, itself where nothing judges it. Raises UnfitError."""
        if self.fits is None or self.fits(value) or is_future(value) or _holds_future(value) or holds_late(value):
            return value
        adapter = self._adapter()
        if adapter is None:
            return value
        from pydantic import PydanticUserError, ValidationError

        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise UnfitError(_reason_of(error), error) from error
        except PydanticUserError:
            return value  # The hint names a class that pydantic cannot complete, so nothing judges the value.
        except Exception as error:  # A validator of the user's own type failed.
            raise UnfitError(f"{type(error).__name__}: {error}", error) from error

    def accepts(self, value: object) -> bool:
        """Say whether `convert` would return something for the value."""
        try:
            self.convert(value)
        except UnfitError:
            return False
        return True

    def keeps_text(self) -> bool:
        """Say whether the hint is `str`, under whatever alias."""
        return _bare(self.hint) is str

    def _adapter(self) -> TypeAdapter[object] | None:
        if self._adapters is None:
            self._adapters = adapters_for(self.hint)
        return self._adapters[0] if self._adapters else None


# Checks: does a value fit a hint, without pydantic. A check of None means that the hint judges nothing.


def _takes_late(hint: object, depth: int = 0) -> bool:
    """Tell whether a hint is that of a Secret, or none; of the elements of a container only the former counts."""
    hint = _alias_value(hint)
    origin = typing.get_origin(hint)
    cls = origin or hint
    if isinstance(cls, type) and issubclass(cls, Late):
        return True
    if depth > len(ELEMENTS_CHECKED):
        return False
    below = 0 if origin in (typing.Union, types.UnionType, Annotated) and not depth else depth + 1
    is_none = depth == 0 and (hint is object or hint is Any or isinstance(hint, TypeVar))
    return is_none or (bool(origin) and any(_takes_late(part, below) for part in typing.get_args(hint)))


def _guarded_check(hint: object) -> Check | None:
    try:
        return _check_of(hint, 0)
    except Exception:  # Hints are user code; an exotic one that cannot be taken apart judges nothing.
        return None


def _check_of(hint: object, depth: int) -> Check | None:
    hint = _alias_value(hint)
    if hint is None:
        hint = type(None)
    if isinstance(hint, type):
        return _class_check(hint, depth)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _never if any(map(_validates, args[1:])) else _check_of(args[0], depth)
    if origin is Literal:
        return _literal_check(args)
    if origin in (typing.Union, types.UnionType):
        return _union_check([_check_of(member, depth) for member in args])
    if isinstance(origin, type):
        return _generic_check(origin, args, depth)
    return None


def _class_check(hint: type, depth: int) -> Check | None:
    if hint is object or depth > len(ELEMENTS_CHECKED):
        return None
    if typing.is_typeddict(hint):
        return _typed_dict_check(hint, depth)
    if hint is float:
        return lambda value: isinstance(value, int | float)
    if hint is complex:
        return lambda value: isinstance(value, int | float | complex)
    isinstance(None, hint)  # Raises TypeError for a protocol that isinstance cannot check: nothing judges it.
    return lambda value: isinstance(value, hint)


def _literal_check(choices: tuple[object, ...]) -> Check:
    return lambda value: any(type(value) is type(choice) and value == choice for choice in choices)


def _union_check(checks: list[Check | None]) -> Check | None:
    present = [check for check in checks if check is not None]
    if len(present) < len(checks):
        return None
    return lambda value: any(check(value) for check in present)


def _typed_dict_check(hint: type, depth: int) -> Check:
    checks = {name: _check_of(each, depth + 1) for name, each in typing.get_type_hints(hint).items()}
    required: frozenset[str] = getattr(hint, "__required_keys__", frozenset())

    def fits(value: object) -> bool:
        if type(value) is not dict or not required <= value.keys() <= checks.keys():
            return False
        judged = ((checks[name], item) for name, item in value.items())
        return all(check is None or check(item) or is_future(item) for check, item in judged)

    return fits


def _generic_check(origin: type, args: tuple[object, ...], depth: int) -> Check:
    """Return the check of `origin[args]`; elements are looked at in the standard containers only."""

    def fits_class(value: object) -> bool:
        return isinstance(value, origin)

    if depth >= len(ELEMENTS_CHECKED) or origin.__module__ not in _ELEMENT_MODULES:
        return fits_class
    if origin is type and isinstance(args[0], type):
        wanted = args[0]
        return lambda value: isinstance(value, type) and issubclass(value, wanted)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return _fixed_tuple_check([_check_of(each, depth + 1) for each in args])
    if issubclass(origin, Mapping) and len(args) == 2:
        return _mapping_check(origin, args, depth)
    # An Iterable that is no Collection may be a generator, which looking at would use up.
    if issubclass(origin, Collection) and args:
        return _collection_check(origin, args[0], depth)
    return fits_class


def _fixed_tuple_check(checks: list[Check | None]) -> Check:
    def fits(value: object) -> bool:
        if not isinstance(value, tuple) or len(value) != len(checks):
            return False
        judged = zip(checks, value, strict=True)
        return all(check is None or check(item) or is_future(item) for check, item in judged)

    return fits


def _mapping_check(origin: type, args: tuple[object, ...], depth: int) -> Check:
    keys_fit, values_fit = (_iterable_check(each, depth) for each in args)

    def fits(value: object) -> bool:
        if not isinstance(value, origin):
            return False
        mapping = typing.cast("Mapping[object, object]", value)
        return keys_fit(mapping) and values_fit(mapping.values())

    return fits


def _collection_check(origin: type, element: object, depth: int) -> Check:
    elements_fit = _iterable_check(element, depth)

    def fits(value: object) -> bool:
        return isinstance(value, origin) and elements_fit(typing.cast("Collection[object]", value))

    return fits


def _iterable_check(element: object, depth: int) -> Callable[[Iterable[object]], bool]:
    """Return a check of the first elements of an iterable."""
    check, limit = _check_of(element, depth + 1), ELEMENTS_CHECKED[depth]
    exact = element if isinstance(element, type) else None

    def fit(values: Iterable[object]) -> bool:
        if check is None:
            return True
        for value in islice(values, limit):
            if type(value) is exact or check(value) or is_future(value):
                continue
            return False
        return True

    return fit


def _never(_value: object) -> bool:
    """Say that pydantic has to judge."""
    return False


def _alias_value(hint: object) -> object:
    """Look through NewType and `type X = ...`; type variables come out as no type at all."""
    for _ in ELEMENTS_CHECKED:
        if isinstance(hint, TypeVar) or hint is Any:
            return Any
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = getattr(hint, "__value__", Any)
        else:
            break
    return hint


def _bare(hint: object) -> object:
    hint = _alias_value(hint)
    return _bare(typing.get_args(hint)[0]) if typing.get_origin(hint) is Annotated else hint


def _validates(metadata: object) -> bool:
    """Say whether something in Annotated[...] is a constraint or validator, rather than a remark."""
    module = type(metadata).__module__.partition(".")[0]
    return module in _VALIDATING_MODULES or hasattr(metadata, "__get_pydantic_core_schema__")


def is_future(value: object) -> bool:
    """Say whether the value is a future or state of ours; it stands for a value that is not known here."""
    return hasattr(value, "__wfengine_future__")


def is_field(value: object) -> TypeGuard[FieldInfo]:
    """Say whether the default of a parameter is a pydantic.Field(...), which holds the default and more; imports nothing."""
    return type(value).__name__ == "FieldInfo" and type(value).__module__ == "pydantic.fields"


def _holds_future(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(is_future, islice(value.values(), ELEMENTS_CHECKED[0])))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(is_future, islice(value, ELEMENTS_CHECKED[0])))
    return False


def adapters_for(hint: object) -> list[TypeAdapter[object]]:
    """Return pydantic's adapter for the hint, or nothing when pydantic cannot judge it."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    wanted = typing.cast("type[object]", hint)  # Any form of hint will do; most cannot be told to the type checker.
    try:
        try:
            return [TypeAdapter(wanted, config=ConfigDict(arbitrary_types_allowed=True))]
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            return [TypeAdapter(wanted)]  # Models and dataclasses bring their own configuration.
    except Exception:  # Building a schema runs code of the user's types.
        return []


def _reason_of(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    reasons = []
    for each in found[:REASONS_SHOWN]:
        place = ".".join(str(part) for part in each["loc"])
        reasons.append(f"at {place}: {each['msg']}" if place else each["msg"])
    if len(found) > REASONS_SHOWN:
        reasons.append(f"and {len(found) - REASONS_SHOWN} more")
    return "; ".join(reasons)
