"""Finding a user's flow again: what names it for another process, and loading what such a name stands for.

An entrypoint is text with one of these forms:

    file:/abs/script.py:QUALNAME        a script, run as __main__ or loaded by its path
    module:pkg.mod:QUALNAME             a module that any fresh process can import
    module:helpers:QUALNAME:/abs/dir    a module that can be imported once that folder is on sys.path, such as
                                        one beside a script; its classes are pickled under the module's own name,
                                        so it must be loaded under that name too

Loading runs the user's module level code with `is_loading()` true in that thread, where the engine starts no run.
A file is loaded once per process. Nothing here reads or writes a journal.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import site
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, MethodType, ModuleType

from wfengine.runners.away import ERRAND
from wfengine.scopes import current_tracer
from wfengine_journal.errors import EntrypointError, MissingFlowError, ScriptError

#: Names listed in an error before "and N more".
NAMES_SHOWN = 10

#: How the names of modules begin that are scripts: nobody else can import them.
SCRIPT_NAMES = ("__main__", "__mp_main__", "__wfengine_main_")
_MISSING = object()

# One load at a time. Re-entrant, because code that is being loaded may itself ask for a flow.
_lock = threading.RLock()
_loaded: dict[Path, ModuleType] = {}
# By thread and not by context: a context copied at module level would stay "loading" for ever.
_thread = threading.local()


def is_loading() -> bool:
    """Say whether user code is loaded, to find a flow or by `multiprocessing`; a flow called meanwhile does nothing."""
    return getattr(_thread, "depth", 0) > 0 or ("__mp_main__" in sys.modules and _is_spawned_just_now())


def _is_spawned_just_now() -> bool:
    """Say whether this is a child that `multiprocessing` starts, which runs the parent's script again to have its names."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and getattr(process.current_process(), "_inheriting", False)


def leaves_no_trace() -> bool:
    """Say whether what is done outside of any run is not to be written: a file is being loaded, or a flow drawn."""
    return is_loading() or (current_tracer() is not None and ERRAND.get() is None)


def entrypoint_of(fn: Callable[..., object]) -> str | None:
    """Return text by which another process finds `fn`, or None when no other process can.

    None for nested functions, lambdas, and code from a prompt, a notebook, `python -c`, standard input or `exec`.
    """
    inner = inspect.unwrap(fn)
    qualname: str = getattr(inner, "__qualname__", "<unknown>")
    module_name: str = getattr(inner, "__module__", None) or ""
    code = getattr(inner, "__code__", None)
    if "<" in qualname or not module_name or (code is not None and code.co_filename.startswith("<")):
        return None
    names = getattr(inner, "__globals__", None) or vars(sys.modules.get(module_name, ModuleType("")))
    file = _file_of(names)
    if file is not None and module_name.startswith(SCRIPT_NAMES):
        return f"file:{file}:{qualname}"
    folder = _import_folder(module_name, file)
    if folder is not None:
        return f"module:{module_name}:{qualname}" + (f":{folder}" if folder else "")
    return f"file:{file}:{qualname}" if file is not None else None


def load_entrypoint(entrypoint: str) -> object:
    """Return what an entrypoint names, loading its file or module if need be. Raises EntrypointError."""
    kind, _, rest = entrypoint.partition(":")
    if kind == "file" and ":" in rest:
        path, _, qualname = rest.rpartition(":")
        module = _load_file(Path(path))
        if not module.__name__.startswith(SCRIPT_NAMES):
            # It ran as `python -m package.module` when its names were written, as names in __main__.
            _announce_script(module)
        return _named(module, qualname, path)
    if kind == "module" and ":" in rest:
        name, qualname, *folder = rest.split(":", 2)
        return _named(_load_module(name, folder[0] if folder else None), qualname, name)
    raise EntrypointError(
        f"{entrypoint!r} is not an entrypoint. One looks like 'file:/path/script.py:flow' or 'module:package.module:flow'."
    )


def load_target(target: str) -> tuple[object, ...]:
    """Return the flows that 'FILE_OR_MODULE[:FLOW]' of a command line names: all that are defined there, or the one.

    Entrypoints are accepted too. Raises EntrypointError, also when there is no flow.
    """
    if target.startswith(("file:", "module:")) and target.count(":") > 1:
        found = load_entrypoint(target)
        if not _is_flow(found):
            raise EntrypointError(f"{target} is a {type(found).__name__}, not a flow.")
        return (found,)
    place, flow_name = _split_target(target, "flow")
    module = _module_at(place)
    if flow_name is not None:
        return (_flow_named(module, flow_name, place),)
    own = _own_flows(module)
    if not own:
        others = _flows_in(module)
        imported = f" It imports {_listed(list(others))}; name one as {place}:{next(iter(others))}." if others else ""
        raise MissingFlowError(f"No flow is defined in {place}.{imported or ' Decorate a function there with @flow.'}")
    return own


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Let modules of a folder be found too while the block loads them, after those that are found without."""
    text = str(folder)
    added = text not in sys.path
    if added:
        sys.path.append(text)
    try:
        yield
    finally:
        if added:
            sys.path.remove(text)


def load_namespace(target: str) -> dict[str, object]:
    """Return what stands at the top of the file or module that 'FILE_OR_MODULE[:NAME]' names. Raises EntrypointError."""
    return dict(vars(_module_at(_split_target(target, "flow")[0])))


def load_tasks(target: str) -> tuple[object, ...]:
    """Return the tasks that 'FILE_OR_MODULE[:TASK]' of a command line names: all that are defined there, or the one.

    Raises EntrypointError, also when there is no task.
    """
    place, task_name = _split_target(target, "task")
    module = _module_at(place)
    tasks = {name: value for name, value in list(vars(module).items()) if _is_task(value)}
    if task_name is None:
        own = [task for task in tasks.values() if getattr(task, "__module__", None) == module.__name__]
        if not own:
            raise EntrypointError(f"No task is defined in {place}. Decorate a function there with @task.")
        return tuple({id(task): task for task in own}.values())
    found: object = module
    for part in task_name.split("."):
        found = getattr(found, part, None)
    if not _is_task(found):
        listed = f"Tasks there: {_listed(list(tasks))}." if tasks else "There are no tasks in it."
        raise EntrypointError(f"There is no task {task_name!r} in {place}.{_did_you_mean(task_name, list(tasks))} {listed}")
    return (found,)


def _module_at(place: str) -> ModuleType:
    return _load_file(Path(place)) if _looks_like_file(place) else _load_module(place, str(Path.cwd()))


# What names a function


def _file_of(names: dict[str, object]) -> Path | None:
    """Return the resolved source file of a module, given its globals; None when there is none on disk."""
    file = names.get("__file__")
    return _resolved_file(file) if isinstance(file, str) else None


@cache
def _resolved_file(file: str) -> Path | None:
    path = Path(file)
    return path.resolve() if path.is_file() else None


@cache
def _import_folder(name: str, file: Path | None) -> str | None:
    """Return what must be on sys.path to import the module: "" for nothing, None when it cannot be imported by name."""
    if name.startswith(SCRIPT_NAMES):
        return None
    origin = _origin_found_afresh(name)
    if origin is None:
        return None
    if file is None:
        return "" if origin in ("built-in", "frozen") else None
    if Path(origin).resolve() != file:
        return None
    steps = name.count(".") + (file.name == "__init__.py")
    root = file.parents[steps]
    # Finders of editable installs know modules that lie under no folder of sys.path.
    if root not in {Path(entry).resolve() for entry in sys.path} or root in _starting_folders():
        return ""
    return str(root)


def _origin_found_afresh(name: str) -> str | None:
    """Search for a module as a new process would, without looking at what is imported already."""
    locations: list[str] | None = None
    origin: str | None = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = _spec_found(".".join(parts[:count]), locations)
        if spec is None:
            return None
        found = spec.submodule_search_locations
        locations, origin = (list(found) if found is not None else []), spec.origin
    return origin


def _spec_found(name: str, locations: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, locations)
        except Exception:  # Finders are other people's code; one that fails finds nothing.
            continue
        if spec is not None:
            return spec
    return None


@cache
def _starting_folders() -> frozenset[Path]:
    """Return the folders that a fresh interpreter has on sys.path, without any script's own folder."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    for folder in folders:
        for listing in Path(folder).glob("*.pth"):
            lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
            entries += [str(Path(folder, line)) for line in lines if not line.startswith(("import", "#"))]
    standard = Path(os.__file__).parent
    return frozenset({Path(entry).resolve() for entry in [*folders, *entries, str(standard)]})


# Loading


@contextmanager
def loading() -> Iterator[None]:
    """Let flows that are called in the block do nothing, on this thread."""
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        with _lock:
            yield
    finally:
        _thread.depth -= 1


def _load_file(path: Path) -> ModuleType:
    """Return the module of a file, loading it if this process has not got it. Raises EntrypointError."""
    if not path.is_file():
        raise EntrypointError(_missing_file_text(path))
    resolved = path.resolve()
    with loading():
        module = _loaded.get(resolved) or _running_module(resolved)
        if module is None:
            module = _import_from_package(resolved) or _execute_script(resolved)
        _loaded[resolved] = module
        return module


def _running_module(resolved: Path) -> ModuleType | None:
    """Return the module that this process already made of the file, the running script first."""
    main = sys.modules.get("__main__")
    for module in [main, *list(sys.modules.values())]:
        # Lazy modules do work on attribute access, so only what stands in the dictionary is looked at.
        file = getattr(module, "__dict__", {}).get("__file__") if isinstance(module, ModuleType) else None
        if not isinstance(file, str) or Path(file).name != resolved.name:
            continue
        if _resolved_file(file) == resolved and isinstance(module, ModuleType):
            return module
    return None


def _import_from_package(resolved: Path) -> ModuleType | None:
    """Import a file that lies in a package by its module name, so that its relative imports work."""
    names = [] if resolved.name == "__init__.py" else [resolved.stem]
    folder = resolved.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    if folder == resolved.parent:
        return None
    name = ".".join(names)
    if not _is_found_at(name, resolved):
        _put_first_on_path(str(folder))
        if not _is_found_at(name, resolved):
            return None
    return _load_module(name, None)


def _is_found_at(name: str, resolved: Path) -> bool:
    origin = _origin_found_afresh(name)
    return origin is not None and Path(origin).resolve() == resolved


#: One entry for each flow that was called at module level, and did nothing, while a file was loaded.
_skipped_calls: list[None] = []


def note_skipped_call() -> None:
    """Note that a flow was called while its file is being loaded, so that the script has no result to go on with."""
    _skipped_calls.append(None)


def _execute_script(resolved: Path) -> ModuleType:
    """Execute a file as a new module. Its name is not __main__, so that a main guard is not entered."""
    name = _free_script_name()
    spec = importlib.util.spec_from_file_location(name, resolved, loader=_ScriptLoader(name, str(resolved)))
    if spec is None or spec.loader is None:
        raise EntrypointError(f"{resolved} cannot be loaded as a Python file.")
    module = importlib.util.module_from_spec(spec)
    _put_first_on_path(str(resolved.parent))
    # Registered before it runs: dataclasses and pickle look their module up while it is being executed.
    sys.modules[name] = module
    skipped_before = len(_skipped_calls)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if len(_skipped_calls) > skipped_before and isinstance(error, Exception | SystemExit):
            # A script without a main guard went on to use the result of a flow that it did not get. What it defined
            # up to there is what we came for.
            _announce_script(module)
            return module
        sys.modules.pop(name, None)
        if isinstance(error, Exception | SystemExit):
            raise ScriptError(_failure_text(str(resolved), error)) from error
        raise
    _announce_script(module)
    return module


def _load_module(name: str, folder: str | None) -> ModuleType:
    """Import a module by name, with `folder` on sys.path if it is not found without. Raises EntrypointError."""
    with loading():
        if folder is not None and name not in sys.modules and _spec_found(name.partition(".")[0], None) is None:
            _put_first_on_path(folder)
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
                raise EntrypointError(_missing_module_text(name, error.name)) from error
            raise ScriptError(_failure_text(name, error)) from error


class _ScriptLoader(SourceFileLoader):
    """Compiles the source each time, as Python does for a script.

    Cached bytecode is told from the source by size and whole seconds, so a one-letter fix followed at once by a
    resume would run the old code.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _free_script_name() -> str:
    name, number = "__wfengine_main__", 1
    while name in sys.modules:
        number += 1
        name = f"__wfengine_main_{number}__"
    return name


def _put_first_on_path(folder: str) -> None:
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def _announce_script(module: ModuleType) -> None:
    # Imported here because the codec is needed only by processes that load a script.
    from wfengine_journal.codec import register_script_module

    register_script_module(module)


# What stands in a module


def _named(module: ModuleType, qualname: str, place: str) -> object:
    """Return the attribute, or the flow that was made of the function of that name."""
    value: object = module
    for part in qualname.split("."):
        holder, value = value, getattr(value, part, _MISSING)
        if value is _MISSING:
            raise MissingFlowError(_missing_name_text(module, qualname, place))
    if isinstance(value, MethodType) and _is_flow(value.__func__):
        return value.__func__  # Python 3.13 gives this for @classmethod above @flow
    if not _is_flow(value):
        # `nightly = flow(etl)` leaves the plain function under its own name, in a class too.
        found = [*_flows_in(module).values(), *(_flows_in(holder).values() if isinstance(holder, type) else ())]
        made = [flow for flow in found if getattr(flow, "fn", None) is value]
        return made[0] if made else value
    return value


def _flow_named(module: ModuleType, name: str, place: str) -> object:
    """Return a flow by the name of its variable, or by the name it was given."""
    given = [flow for flow in _flows_in(module).values() if getattr(flow, "name", None) == name]
    if given and not hasattr(module, name):
        return given[0]
    value = _named(module, name, place)
    if not _is_flow(value):
        raise MissingFlowError(f"{name!r} in {place} is a {type(value).__name__}, not a flow. {_flows_text(module)}")
    return value


def _is_flow(value: object) -> bool:
    # Looked up statically: objects that answer to every name, such as mocks, are no flows. Nor is the class Flow.
    return not isinstance(value, type) and inspect.getattr_static(value, "__wfengine_flow__", None) is not None


def _is_task(value: object) -> bool:
    return not isinstance(value, type) and inspect.getattr_static(value, "__wfengine_task__", None) is not None


def _flows_in(holder: ModuleType | type) -> dict[str, object]:
    """Return the flows of a module, imported ones too, or of a class, by the first name each has there."""
    flows: dict[int, tuple[str, object]] = {}
    for name, value in list(vars(holder).items()):
        if _is_flow(value):
            flows.setdefault(id(value), (name, value))
    return dict(flows.values())


def _own_flows(module: ModuleType) -> tuple[object, ...]:
    flows = _flows_in(module).values()
    return tuple(flow for flow in flows if getattr(getattr(flow, "fn", flow), "__module__", None) == module.__name__)


# Reading the command line


def _split_target(target: str, kind: str) -> tuple[str, str | None]:
    place, colon, name = target.rpartition(":")
    if not colon or Path(target).is_file() or "/" in name or os.sep in name:
        return target, None
    if not place or not name:
        raise EntrypointError(f"{target!r} names no {kind}. Write FILE_OR_MODULE or FILE_OR_MODULE:{kind.upper()}.")
    return place, name


def _looks_like_file(place: str) -> bool:
    is_dotted_name = all(part.isidentifier() for part in place.split("."))
    return place.endswith(".py") or not is_dotted_name or Path(place).is_file()


# Texts


def _missing_file_text(path: Path) -> str:
    folder = path.parent
    if path.is_dir():
        return f"{path} is a folder. Name the file in it that defines the flow."
    if not folder.is_dir():
        return f"There is no file {path}: the folder {folder.absolute()} does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".py")
    near = _did_you_mean(path.name, names)
    return f"There is no file {path} (looked in {folder.absolute()}).{near}"


def _missing_module_text(name: str, missing: str) -> str:
    file = Path(f"{name.replace('.', os.sep)}.py")
    hint = f" Did you mean the file {file}?" if file.is_file() else ""
    return (
        f"There is no module {missing!r} to import, so {name!r} cannot be loaded.{hint} "
        f"Check the name, or run from the folder that holds it."
    )


def _missing_name_text(module: ModuleType, qualname: str, place: str) -> str:
    near = _did_you_mean(qualname, [*_flows_in(module), *vars(module)])
    return f"There is no {qualname!r} in {place}.{near} {_flows_text(module)}"


def _flows_text(module: ModuleType) -> str:
    names = list(_flows_in(module))
    return f"Flows there: {_listed(names)}." if names else "There are no flows in it."


def _listed(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _failure_text(place: str, error: BaseException) -> str:
    """Say why loading failed, and on which line."""
    where = _innermost_line(error)
    if isinstance(error, SystemExit):
        return (
            f"{place} cannot be loaded: it ends the program (sys.exit) at module level{where}. "
            f"Put what should only run as a script under `if __name__ == '__main__':`."
        )
    reason = f"{type(error).__name__}: {error}".strip(": ")
    return f"{place} cannot be loaded: {reason}{where}. Correct it there and try again."


def _innermost_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename[:1] != "<"]
    if not frames or frames[-1].filename == __file__:
        return ""
    innermost = frames[-1]
    return f" ({innermost.filename}, line {innermost.lineno}: {innermost.line})"


def _did_you_mean(name: str, candidates: list[str]) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(name, candidates, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
