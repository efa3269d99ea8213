"""Entrypoints of functions, and loading them in another process. The programs are real files in real processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from wfengine.loading import entrypoint_of, is_loading, load_entrypoint
from wfengine_journal.errors import EntrypointError

# Stands for the engine's decorator: what loading knows of a flow is its mark, its name and its function.
FLOW = """
    class Flow:
        __wfengine_flow__ = True

        def __init__(self, fn, name=None):
            self.fn = fn
            self.name = name or fn.__name__

        def __call__(self):
            from wfengine.loading import is_loading
            return None if is_loading() else self.fn()
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def python(*arguments: str | Path, cwd: Path, stdin: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def load_elsewhere(entrypoint: str, cwd: Path, then: str = "print(found.__qualname__)") -> str:
    program = f"from wfengine.loading import load_entrypoint\nfound = load_entrypoint({entrypoint!r})\n{then}"
    return python("-c", program, cwd=cwd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "flowkind.py", FLOW)
    return tmp_path


SCRIPT = """
    from flowkind import Flow
    from wfengine.loading import entrypoint_of

    class Order:
        pass

    @Flow
    def etl():
        print("ran")

    print(entrypoint_of(etl.fn))
"""


def test_a_function_of_a_script_is_found_again_by_file_and_not_run_without_a_main_guard(folder, tmp_path_factory):
    script = write(folder / "script.py", SCRIPT + "\n    etl()\n")
    entrypoint, ran = python(script, cwd=folder).splitlines()
    assert (entrypoint, ran) == (f"file:{script}:etl", "ran")
    printed = load_elsewhere(entrypoint, tmp_path_factory.mktemp("elsewhere"), "print(found.name, found.fn.__module__)")
    assert printed.splitlines() == [f"file:{script}:etl", "etl __wfengine_main__"]


def test_a_main_guard_is_not_entered(folder):
    script = write(folder / "script.py", SCRIPT + "\n    if __name__ == '__main__':\n        raise SystemExit('entered')\n")
    assert load_elsewhere(f"file:{script}:etl", folder, "print('loaded')").endswith("loaded")


def test_a_relative_script_path_becomes_absolute(folder):
    script = write(folder / "script.py", SCRIPT)
    assert python("script.py", cwd=folder) == f"file:{script}:etl"


def test_the_running_script_is_not_loaded_a_second_time(folder):
    script = write(
        folder / "script.py",
        """
        from wfengine.loading import entrypoint_of, load_entrypoint

        class Order:
            def total(self): ...

        if __name__ == "__main__":
            entrypoint = entrypoint_of(Order.total)
            assert entrypoint == f"file:{__file__}:Order.total"
            print(load_entrypoint(entrypoint) is Order.total)
        """,
    )
    assert python(script, cwd=folder) == "True"


def test_a_class_of_a_script_is_written_under_one_name_wherever_it_is_loaded(folder):
    script = write(folder / "script.py", "class Order: ...\n")
    then = f"""
from wfengine_journal.codec import stored_type_name
assert load_entrypoint("file:{script}:Order") is found
print(stored_type_name(found))
"""
    assert load_elsewhere(f"file:{script}:Order", folder, then) == "__main__.Order"


def test_a_value_of_a_class_goes_between_the_running_script_and_the_loaded_file(folder):
    script = write(
        folder / "script.py",
        """
        import pickle, sys
        from pathlib import Path
        from wfengine.loading import entrypoint_of, is_loading
        from wfengine_journal import codec

        class Order: ...

        def write(name):
            encoded = codec.encode(Order(), "an order")
            Path(name).write_bytes(pickle.dumps((encoded.codec, encoded.data, encoded.hash)))

        def read(name):
            value = codec.decode(*pickle.loads(Path(name).read_bytes()), "an order")
            assert type(value) is Order, type(value)

        if __name__ == "__main__":
            read("second") if Path("second").exists() else write("first")
        """,
    )
    python(script, cwd=folder)
    assert load_elsewhere(f"file:{script}:read", folder, "found('first'); print('read')") == "read"
    load_elsewhere(f"file:{script}:write", folder, "found('second')")
    python(script, cwd=folder)


def test_a_fix_of_one_letter_in_the_same_second_is_seen_and_no_bytecode_is_left(folder):
    script = write(folder / "script.py", "x = 1\n")
    assert load_elsewhere(f"file:{script}:x", folder, "print(found)") == "1"
    write(script, "x = 2\n")
    assert load_elsewhere(f"file:{script}:x", folder, "print(found)") == "2"
    assert not list(folder.glob("__pycache__/script*"))


def test_a_module_beside_a_script_is_loaded_under_its_own_name(folder, tmp_path_factory):
    write(folder / "helpers.py", "def etl(): ...\n")
    script = write(
        folder / "script.py",
        "import helpers\nfrom wfengine.loading import entrypoint_of\nprint(entrypoint_of(helpers.etl))\n",
    )
    entrypoint = python(script, cwd=folder)
    assert entrypoint == f"module:helpers:etl:{folder}"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert load_elsewhere(entrypoint, elsewhere, "print(found.__module__)") == "helpers"


def test_a_module_that_any_process_can_import_is_found_by_its_name():
    import pytest_timeout

    entrypoint = entrypoint_of(pytest_timeout.is_debugging)
    assert entrypoint == "module:pytest_timeout:is_debugging"
    assert load_entrypoint(entrypoint) is pytest_timeout.is_debugging


def package(folder: Path) -> Path:
    write(folder / "pkg" / "__init__.py", "")
    write(folder / "pkg" / "base.py", FLOW)
    return write(
        folder / "pkg" / "flows.py",
        """
        from .base import Flow
        from wfengine.loading import entrypoint_of

        @Flow
        def etl(): ...

        print(entrypoint_of(etl.fn))
        """,
    )


def test_a_file_in_a_package_is_imported_by_its_module_name(tmp_path, tmp_path_factory):
    file = package(tmp_path)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    printed = load_elsewhere(f"file:{file}:etl", elsewhere, "print(found.fn.__module__)")
    assert printed.splitlines() == [f"module:pkg.flows:etl:{tmp_path}", "pkg.flows"]


def test_a_module_run_with_dash_m_is_found_again_by_its_file(tmp_path, tmp_path_factory):
    file = package(tmp_path)
    entrypoint = python("-m", "pkg.flows", cwd=tmp_path)
    assert entrypoint == f"file:{file}:etl"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert load_elsewhere(entrypoint, elsewhere, "print(found.name)").splitlines()[-1] == "etl"


PROGRAM = "from wfengine.loading import entrypoint_of\ndef etl(): ...\nprint(entrypoint_of(etl))\n"


def test_code_that_no_other_process_can_find_has_no_entrypoint(tmp_path):
    assert python("-c", PROGRAM, cwd=tmp_path) == "None"
    assert python("-", cwd=tmp_path, stdin=PROGRAM) == "None"
    script = write(tmp_path / "script.py", f"exec({PROGRAM!r})\n")
    assert python(script, cwd=tmp_path) == "None"

    def nested() -> None: ...

    assert entrypoint_of(nested) is None
    assert entrypoint_of(lambda: None) is None


def test_two_scripts_are_two_modules_and_each_is_loaded_once(folder):
    for name in ("one", "two"):
        write(folder / f"{name}.py", "import sys\nprint(__name__, sys.path[0] == __file__.rpartition('/')[0])\nx = 1\n")
    then = f"load_entrypoint('file:{folder}/two.py:x'); load_entrypoint('file:{folder}/one.py:x')"
    assert load_elsewhere(f"file:{folder}/one.py:x", folder, then).splitlines() == [
        "__wfengine_main__ True",
        "__wfengine_main_2__ True",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module' ("),
        ("def f():\n    return 1 / 0\nf()\n", "line 2: return 1 / 0)"),
        ("x = = 1\n", "line 1)"),
        ("import sys\nsys.exit(3)\n", "ends the program (sys.exit) at module level"),
        ("input()\n", "cannot be loaded: "),
    ],
)
def test_a_file_that_fails_to_load_is_named_with_the_reason_and_leaves_nothing_behind(tmp_path, text, said):
    broken = write(tmp_path / "broken.py", text)
    before = set(sys.modules)
    with pytest.raises(EntrypointError) as caught:
        load_entrypoint(f"file:{broken}:etl")
    assert said in str(caught.value)
    assert str(broken) in str(caught.value)
    assert caught.value.__cause__ is not None
    assert not {name for name in set(sys.modules) - before if name.startswith("__wfengine_main")}
    assert not is_loading()
    sys.path.remove(str(tmp_path))


def test_a_corrected_file_loads_after_it_failed(tmp_path):
    script = write(tmp_path / "script.py", "1 / 0\n")
    with pytest.raises(EntrypointError):
        load_entrypoint(f"file:{script}:x")
    write(script, "x = 'now it is longer'\n")
    assert load_entrypoint(f"file:{script}:x") == "now it is longer"
    sys.path.remove(str(tmp_path))


def failing(target: str, cwd: Path) -> str:
    program = f"""
from wfengine.loading import load_target
from wfengine_journal.errors import EntrypointError
try:
    load_target({target!r})
except EntrypointError as error:
    print(error)
"""
    return python("-c", program, cwd=cwd)


FLOWS = """
    from flowkind import Flow
    from others import imported

    @Flow
    def etl(): ...

    @Flow
    def report(): ...

    def plain(): ...

    nightly = Flow(plain, name="every-night")
    again = etl
    number = 1
"""


def targets(folder: Path) -> Path:
    write(folder / "others.py", "from flowkind import Flow\n@Flow\ndef imported(): ...\n")
    return write(folder / "flow.py", FLOWS)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("flow.py", ["etl", "report", "every-night"]),
        ("flow", ["etl", "report", "every-night"]),
        ("flow.py:etl", ["etl"]),
        ("flow:report", ["report"]),
        ("flow.py:nightly", ["every-night"]),
        ("flow.py:every-night", ["every-night"]),
        ("flow.py:plain", ["every-night"]),
        ("flow.py:imported", ["imported"]),
    ],
)
def test_a_target_of_the_command_line_names_the_flows_of_a_file_or_module(folder, target, names):
    targets(folder)
    program = f"from wfengine.loading import load_target\nprint(*[flow.name for flow in load_target({target!r})])"
    # -P, because a console script has neither its working directory nor a script's folder on sys.path.
    assert python("-P", "-c", program, cwd=folder).split() == names


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("flwo.py", "Did you mean 'flow.py'?"),
        ("nowhere/flow.py", "nowhere does not exist"),
        ("flow.py:elt", "Did you mean 'etl'? Flows there: imported, etl, report, nightly."),
        ("flow.py:number", "'number' in flow.py is a int, not a flow."),
        ("flow.py:", "names no flow"),
        ("no_such.module:etl", "There is no module 'no_such'"),
        ("flowkind.py", "No flow is defined in flowkind.py."),
        ("importing.py", "It imports etl; name one as importing.py:etl."),
        (".", "is a folder"),
    ],
)
def test_a_target_that_names_no_flow_is_answered_in_plain_words(folder, target, said):
    targets(folder)
    write(folder / "importing.py", "from flow import etl\n")
    assert said in failing(target, folder)


def test_text_that_is_no_entrypoint_is_refused():
    with pytest.raises(EntrypointError, match="is not an entrypoint"):
        load_entrypoint("script.py")


def test_other_threads_are_not_loading_while_one_is(tmp_path):
    write(
        tmp_path / "script.py",
        """
        import threading
        from wfengine.loading import is_loading
        seen = []
        thread = threading.Thread(target=lambda: seen.append(is_loading()))
        thread.start()
        thread.join()
        seen.append(is_loading())
        """,
    )
    assert load_entrypoint(f"file:{tmp_path / 'script.py'}:seen") == [False, True]
    sys.path.remove(str(tmp_path))


def test_threads_that_load_the_same_file_share_one_module(tmp_path):
    entrypoint = f"file:{write(tmp_path / 'script.py', 'class Order: ...')}:Order"
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_entrypoint(entrypoint)), name=f"load-{each}") for each in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    sys.path.remove(str(tmp_path))
