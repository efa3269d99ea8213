"""Pickle as the journal writes it: what is refused, what is written by name, and how names are found again.

Classes and functions at the top level of a script are written as names in `__main__` and looked up in the script
wherever it is loaded, so that they stay the same classes on resume. Local ones, and those of a notebook, are written by
value. An object of wfengine itself is never pickled, apart from its errors and what is written as a call of a public name
(a local class holds its tasks): a journal outlives the module paths of the version that wrote it. This module knows
nothing of hashes, codecs and files.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from types import FunctionType, ModuleType
from typing import cast

from wfengine_journal.errors import Signal, WfengineError
from wfengine_journal.previews import preview, type_name

#: Levels of nesting of builtin containers that are looked through before a trial load is cheaper than looking further.
MAX_PLAIN_DEPTH = 100

#: Containers on one level above which a shared one is counted once: sharing may double the work with each level.
MAX_SHARED = 10_000

#: Elements whose types the trial load compares. It is a check of what a class does to its contents, not of each one.
MAX_COMPARED = 10_000

_PROTOCOL = 5
_OWN_PACKAGES = frozenset({"wfengine", "wfengine_journal", "wfengine_scheduler"})
#: Modules whose names stay what they are, since users import them.
_PUBLIC_MODULES = frozenset({"wfengine", "wfengine.annotations", "wfengine.secrets"})


class TooLargeError(Exception):
    """More bytes than the limit given were about to be written."""


class OwnObjectError(Exception):
    """An object of wfengine itself was met. The text says of which class."""


class NameGoneError(Exception):
    """A payload names a class or function that is not there. The text says which."""


_PATHS = frozenset({PurePath, PurePosixPath, PureWindowsPath, Path, PosixPath, WindowsPath})
_PLAIN_SEQUENCES = frozenset({list, tuple, set, frozenset})
# These two grow by the classes below when one is met: their modules are slow to import, and most values have none of them.
_PLAIN_ATOMS = {*_PATHS, str, int, float, bool, type(None), complex, bytes, bytearray, date, timedelta, timezone}
_PLAIN_ZONES = {type(None), timezone}
_LATE_ATOMS = frozenset({("decimal", "Decimal"), ("uuid", "UUID"), ("zoneinfo", "ZoneInfo")})


def _is_late_atom(kind: type) -> bool:
    """Return whether a class is one of `_LATE_ATOMS`, and remember it."""
    module = kind.__module__
    if (module, kind.__qualname__) not in _LATE_ATOMS or getattr(sys.modules.get(module), kind.__qualname__, None) is not kind:
        return False
    _PLAIN_ATOMS.add(kind)
    if module == "zoneinfo":
        _PLAIN_ZONES.add(kind)
    return True


def is_plain(value: object) -> bool:
    """Return whether a value is made of builtin and stdlib types alone that are known to come back from a pickle."""
    level = [value]
    for _ in range(MAX_PLAIN_DEPTH):
        below: list[object] = []
        for item in level:
            kind = type(item)
            if kind in _PLAIN_ATOMS:
                continue
            if kind is datetime or kind is time:
                zone = type(cast("datetime | time", item).tzinfo)
                if zone not in _PLAIN_ZONES and not (_is_late_atom(zone) and zone in _PLAIN_ZONES):
                    return False
            elif kind is dict:
                below.extend(cast("dict[object, object]", item))
                below.extend(cast("dict[object, object]", item).values())
            elif kind in _PLAIN_SEQUENCES:
                if not _PLAIN_ATOMS.issuperset(map(type, cast("Iterable[object]", item))):
                    below.extend(cast("Iterable[object]", item))
            elif not _is_late_atom(kind):
                return False
        if not below:
            return True
        # A container that is used many times is looked at once, or sharing would double the work with each level.
        level = below if len(below) <= MAX_SHARED else list({id(item): item for item in below}.values())
    return False


class _BoundedBuffer(io.BytesIO):
    """Bytes in memory, up to a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._room = limit

    def write(self, data: bytes) -> int:  # type: ignore[override]  # the pickler writes bytes only
        self._room -= len(data)
        if self._room < 0:
            raise TooLargeError
        return super().write(data)


def dump(
    value: object, *, plain: bool = False, errors: bool = False, limit: int, hidden: list[str | bytes] | None = None
) -> bytes:  # fmt: skip
    """Pickle a value. `errors` lets the exceptions of wfengine itself through; `hidden` is given the secrets in pydantic's
    SecretStr and SecretBytes, which do not show them."""
    buffer = _BoundedBuffer(limit)
    if plain:
        pickle.Pickler(buffer, _PROTOCOL).dump(value)
    else:
        pickler = _pickler_class()(buffer, _PROTOCOL)
        pickler.own_errors = errors  # type: ignore[attr-defined]  # the class is made in a function, see there
        pickler.hidden = hidden  # type: ignore[attr-defined]  # as above
        pickler.dump(value)
    return buffer.getvalue()


@functools.cache
def _pickler_class() -> type[pickle.Pickler]:
    import cloudpickle  # slow to import, and most flows never need it

    class JournalPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle ships no types
        """Refuses what does not come back, names what lives in a script, leaves the rest to cloudpickle."""

        own_errors = False
        hidden: list[str | bytes] | None = None

        def reducer_override(self, value: object) -> object:
            kind = type(value)
            if self.hidden is not None and hasattr(kind, "get_secret_value"):
                self.hidden.append(_hidden_in(value))
            named = kind is FunctionType or issubclass(kind, type)
            owner = value if named else kind
            if _is_own(owner) and not _is_public(value, named) and not (self.own_errors and _is_own_error(owner)):
                raise OwnObjectError(f"a {type_name(kind)}" if not named else preview(value))
            if named or kind is ModuleType:
                reference = _script_reference(value)
                if reference is not None:
                    return reference
            if kind is io.TextIOWrapper or kind is memoryview:
                # cloudpickle would turn them into a StringIO and into bytes.
                raise TypeError(f"cannot pickle '{type_name(kind)}' object")
            return super().reducer_override(value)

    return cast("type[pickle.Pickler]", JournalPickler)


def _hidden_in(value: object) -> str | bytes:
    """Return what a SecretStr or SecretBytes hides; of any other such object the text of it."""
    found = value.get_secret_value()  # type: ignore[attr-defined]  # asked for before
    return found if isinstance(found, str | bytes) else str(found)


def _is_own(owner: object) -> bool:
    module = getattr(owner, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in _OWN_PACKAGES


def _is_own_error(owner: object) -> bool:
    return isinstance(owner, type) and issubclass(owner, WfengineError | Signal)


def _is_public(value: object, named: bool) -> bool:
    """Tell whether an object of ours is written by public names only: a name itself, or what says that it is one's call."""
    if named:
        return getattr(value, "__module__", None) in _PUBLIC_MODULES or _is_own_error(value)
    return bool(getattr(type(value), "__wfengine_by_name__", False))


def load(raw: bytes) -> object:
    return _JournalUnpickler(io.BytesIO(raw)).load()


class _JournalUnpickler(pickle.Unpickler):
    """Looks names of `__main__` up in the script, and leaves classes alone that this process already has."""

    _script_file = ""

    def find_class(self, module: str, name: str) -> object:
        if module == "__main__":
            return _find_in_script(name, "")
        if module == "importlib" and name == "import_module":
            return self._import_module
        if module == "builtins" and name == "getattr":
            return self._get_from
        try:
            found = super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            raise NameGoneError(_gone(module, name, error)) from None
        if module == "cloudpickle.cloudpickle":
            wrap = _LOCAL_CLASS_MAKERS.get(name)
            return found if wrap is None else wrap(cast("_Maker", found))
        return cast("object", found)

    def _import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Be importlib.import_module; for `__main__`, `package` is the name of the script's file."""
        if name != "__main__":
            return importlib.import_module(name, package)
        self._script_file = package or ""
        return _candidates(self._script_file)[0]

    def _get_from(self, holder: object, name: str, *default: object) -> object:
        """Be getattr; a name that the likeliest script does not have is looked for in the others."""
        if type(holder) is ModuleType and not hasattr(holder, name) and holder in _candidates(""):
            return _find_in_script(name, self._script_file)
        return getattr(holder, name, *default)


def _gone(module: str, name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"there is no module {error.name or module}, which should hold {name}"
    if isinstance(error, ImportError):
        return f"module {module}, which should hold {name}, cannot be imported ({error})"
    return f"module {module} has no {name}"


# cloudpickle writes a local class by value and gives it an id. On loading, a process that knows the id takes the class
# it has and sets all its attributes again from the payload: methods become copies, counters and caches on the class go
# back. A class that is complete is therefore left as it is. One that another thread is just building is set by both.
_unfinished: weakref.WeakSet[type] = weakref.WeakSet()
_making = threading.RLock()
_Maker = Callable[..., object]


def _keep_known_class(make: _Maker) -> _Maker:
    def make_class(*arguments: object) -> object:
        from cloudpickle import cloudpickle  # loaded already, by the payload

        with _making:
            known = getattr(cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", {}).get(arguments[-2])
            if known is not None:
                return known
            made = make(*arguments)
            _unfinished.add(cast("type", made))
            return made

    return make_class


def _keep_known_state(set_state: _Maker) -> _Maker:
    def set_class_state(cls: type, state: object) -> object:
        if cls not in _unfinished:
            return cls
        set_state(cls, state)
        _unfinished.discard(cls)
        return cls

    return set_class_state


_LOCAL_CLASS_MAKERS: dict[str, Callable[[_Maker], _Maker]] = {
    "_make_skeleton_class": _keep_known_class,
    "_make_skeleton_enum": _keep_known_class,
    "_class_setstate": _keep_known_state,
}


def check_same(value: object, loaded: object) -> None:
    """Raise TypeError unless the trial load gave the type back, and in builtin containers those of the elements."""
    pairs = [(value, loaded)]
    for left, right in pairs:  # grows while it is walked
        if not _same_type(type(left), type(right)):
            raise TypeError(f"a {type_name(type(left))} comes back as a {type_name(type(right))}")
        room = MAX_COMPARED - len(pairs)
        if room <= 0:
            return
        if type(left) is dict:
            pairs += list(zip(left.values(), cast("dict[object, object]", right).values(), strict=False))[:room]
        elif type(left) is list or type(left) is tuple:
            pairs += zip(left[:room], cast("list[object]", right)[:room], strict=False)


def _same_type(left: type, right: type) -> bool:
    # A local class is written by value and may come back as another class object; a class of a script that is both
    # loaded and running may come back from the other of the two modules.
    if left is right:
        return True
    return left.__qualname__ == right.__qualname__ and _home(left.__module__) == _home(right.__module__)


def _home(module_name: str) -> str:
    script = _script_named(module_name)
    return module_name if script is None else str(script.__file__)


# The modules that stand for a script, the latest last. Appended to under the import of a script, read everywhere.
_scripts: list[ModuleType] = []


def register_script_module(module: ModuleType) -> None:
    """Let a loaded module stand for the script it was loaded from.

    What lives at its top level is written as a name in `__main__`, and names in `__main__` are looked up in it before
    the real `__main__`. Of several modules the one registered last is asked first.
    """
    if module in _scripts:
        _scripts.remove(module)
    _scripts.append(module)


def stored_type_name(cls: type) -> str:
    """Return the name of a class as the journal shows it: one of a script is in `__main__`, wherever it is loaded."""
    name = type_name(cls)
    for script in _scripts:
        if name.startswith(f"{script.__name__}."):
            return f"__main__{name[len(script.__name__) :]}"
    return name


def _script_named(name: object) -> ModuleType | None:
    """Return the module of this name if it stands for a script; a REPL or notebook has no file and is none."""
    if name in ("__main__", "__mp_main__"):  # the second is the main script within a spawned process
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)  # '<stdin>' for a script that came from a pipe
        return module if file and Path(file).exists() else None
    for module in reversed(_scripts):
        if module.__name__ == name:
            return module
    return None


def _script_reference(value: object) -> object:
    """Return how a class, function or module of a script is written by name; None for anything else.

    The file's name goes along: a process that has loaded several scripts then asks the right one first.
    """
    if type(value) is ModuleType:
        if _script_named(value.__name__) is not value:
            return None
        return (importlib.import_module, ("__main__", _file_name(value)))
    module = _script_named(getattr(value, "__module__", None))
    path = getattr(value, "__qualname__", None)
    if module is None or not isinstance(path, str):
        return None
    outer, _, name = path.rpartition(".")
    try:
        holder = _resolve(module, outer) if outer else module
        found = getattr(holder, name)
    except AttributeError:  # a local class or a lambda: it has no name to be found by
        return None
    return (getattr, (holder, name)) if found is value else None


def reference_of(cls: type) -> str:
    """Return the text by which `find_named` finds a class in another process; TypeError for a class without such a name."""
    module = "__main__" if _script_named(cls.__module__) is not None else cls.__module__
    reference = f"{module}:{cls.__qualname__}"
    try:
        found = find_named(reference)
    except NameGoneError:
        found = None
    if not (isinstance(found, type) and _same_type(cls, found)):
        raise TypeError(f"{type_name(cls)} is not a class at the top level of a module, so it could not be found again")
    return reference


def find_named(reference: str) -> object:
    """Return the class of a reference; imports its module. Raises NameGoneError."""
    module, _, path = reference.partition(":")
    if module == "__main__":
        return _find_in_script(path, "")
    try:
        return _resolve(importlib.import_module(module), path)
    except (ImportError, AttributeError) as error:
        raise NameGoneError(_gone(module, path, error)) from None


def _file_name(module: ModuleType) -> str:
    return Path(getattr(module, "__file__", None) or "").name


def _resolve(module: ModuleType, path: str) -> object:
    return functools.reduce(getattr, path.split("."), cast("object", module))


def _candidates(file_name: str) -> list[ModuleType]:
    """Return the modules that may stand for `__main__`, the likeliest first."""
    modules = [*reversed(_scripts), sys.modules["__main__"]]
    return sorted(modules, key=lambda module: _file_name(module) != file_name)


def _find_in_script(path: str, file_name: str) -> object:
    candidates = _candidates(file_name)
    for module in candidates:
        try:
            return _resolve(module, path)
        except AttributeError:
            continue
    loaded = ", ".join(_file_name(module) or "the running program" for module in candidates)
    raise NameGoneError(f"{path} of the script {file_name} was looked for in {loaded} and is not there".replace("  ", " "))
