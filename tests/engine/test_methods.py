"""Tasks and flows as methods: the instance is an argument like any other, recorded and told from others where it can be."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import attrs
import cloudpickle
import pytest
from pydantic import BaseModel, ConfigDict

from tests.engine.conftest import PROGRAM_HEAD
from wfengine import Flow, Task, flow, task, unmapped
from wfengine.exceptions import ParameterError, UsageError
from wfengine.loading import entrypoint_of

if TYPE_CHECKING:
    from conftest import Program, Rows


@dataclass
class Shop:
    """A user's class."""

    name: str
    stock: list[int] = field(default_factory=list)

    @task
    def sell(self, number: int, price: int = 1) -> str:
        return f"{self.name} sells {number} for {price}"

    @flow
    def open(self, number: int) -> list[str]:
        """Sell in every way."""
        return [self.sell(number), self.sell.submit(number).result(), *self.sell.map([number, number + 1], price=2).result()]

    @task
    @classmethod
    def found(cls, name: str) -> str:
        return f"{cls.__name__} {name}"

    @task
    @staticmethod
    def tax(price: int) -> int:
        return price * 2

    @classmethod
    @task
    def found_below(cls, name: str) -> str:
        return f"{cls.__name__} {name} below"

    @staticmethod
    @task
    def tax_below(price: int) -> int:
        return price * 3

    @flow
    @classmethod
    def franchise(cls, number: int) -> str:
        return cls(f"branch {number}").sell(number)

    @classmethod
    @flow
    def franchise_below(cls, number: int) -> str:
        return f"{cls.__name__} {number}"

    @flow
    @staticmethod
    def fair(number: int) -> int:
        return number

    @staticmethod
    @flow
    def fair_below(number: int) -> int:
        return number + 1


class Mall(Shop):
    """Inherits its methods."""


# Calls


def test_a_method_is_called_submitted_and_mapped_on_its_instance(rows: Rows) -> None:
    @flow
    def program() -> list[object]:
        shop = Shop("north")
        futures = shop.sell.map([1, 2], unmapped(3))
        return [
            shop.sell(1), shop.sell(number=1, price=2), shop.sell.submit(2).result(), futures.result(),
            Shop.sell(shop, 4), Shop.sell(self=shop, number=5), Shop.sell.submit(shop, number=6).result(),
            shop.sell.with_options(name="other", retries=1)(7), shop.sell(8, return_state=True).result(),  # type: ignore[call-overload]
        ]  # fmt: skip

    assert program() == [
        "north sells 1 for 1", "north sells 1 for 2", "north sells 2 for 1", ["north sells 1 for 3", "north sells 2 for 3"],
        "north sells 4 for 1", "north sells 5 for 1", "north sells 6 for 1", "north sells 7 for 1", "north sells 8 for 1",
    ]  # fmt: skip
    names = "SELECT DISTINCT task, task_key FROM tasks ORDER BY task"
    assert rows(names) == [("sell", "Shop.sell")]
    assert "Shop(name='north', stock=[])" in str(rows.value("SELECT inputs FROM tasks WHERE id = 1"))


def test_class_and_static_methods_work_in_both_orders_of_the_decorators() -> None:
    @flow
    def program(cls: type[Shop]) -> list[object]:
        shop = cls("north")
        return [
            cls.found("a"), shop.found("b"), cls.found.submit("c").result(), cls.found.map(["d"]).result(),
            cls.found_below("e"), shop.found_below("f"),
            cls.tax(1), shop.tax(2), shop.tax.submit(3).result(), shop.tax.map([4]).result(),
            cls.tax_below(1), shop.tax_below(2), shop.tax_below.submit(3).result(),
            cls.franchise(1), shop.franchise_below(2), cls.fair(3), shop.fair_below(4),
        ]  # fmt: skip

    for cls in (Shop, Mall):
        name = cls.__name__
        assert program(cls) == [
            f"{name} a", f"{name} b", f"{name} c", [f"{name} d"], f"{name} e below", f"{name} f below",
            2, 4, 6, [8], 3, 6, 9, "branch 1 sells 1 for 1", f"{name} 2", 3, 5,
        ]  # fmt: skip
        assert [cls.franchise(1), cls.franchise_below(2), cls.fair(3), cls.fair_below(4)] == [
            "branch 1 sells 1 for 1", f"{name} 2", 3, 5,
        ]  # fmt: skip


def test_a_task_below_classmethod_knows_its_class_or_is_refused(rows: Rows) -> None:
    """Until Python 3.12 `classmethod` tells what it wraps which class it was looked up in."""

    @flow
    def program() -> list[object]:
        return [Mall.found_below.submit("a").result(), Mall.found_below.with_options(retries=1)("b")]

    @flow
    def refused() -> None:
        for call in (
            lambda: Mall.found_below.submit("a"),
            lambda: Mall.found_below.map(["a"]),
            lambda: Mall.found_below.with_options(retries=1),
            lambda: Mall.franchise_below.with_options(retries=1),
        ):
            with pytest.raises(UsageError, match=r"above @(task|flow).*\n    @(task|flow)\n    @classmethod\n    def f"):
                call()

    if sys.version_info < (3, 13):
        assert program() == ["Mall a below", "Mall b below"]
        return
    refused()
    assert rows.value("SELECT count(*) FROM tasks") == 0


def test_flow_methods_are_flows_of_their_instance(rows: Rows) -> None:
    assert Shop("north").open(1) == [
        "north sells 1 for 1", "north sells 1 for 1", "north sells 1 for 2", "north sells 2 for 2",
    ]  # fmt: skip
    assert Shop("south").open.with_options(name="opening")(2)[0] == "south sells 2 for 1"
    assert rows("SELECT flow, parameters FROM runs") == [
        ("open", '{"self":"Shop(name=\'north\', stock=[])","number":1}'),
        ("opening", '{"self":"Shop(name=\'south\', stock=[])","number":2}'),
    ]


def test_methods_of_instances_in_threads_never_meet_the_other_instance() -> None:
    gate = threading.Barrier(2)

    class Meeting:
        def __init__(self, name: str) -> None:
            self.name = name

        @task
        def meet(self) -> str:
            gate.wait(60)
            return self.name

    @flow
    def program() -> list[str]:
        first, second = Meeting("a").meet, Meeting("b").meet  # both looked up before one is called
        return [future.result() for future in (first.submit(), second.submit())]

    assert program() == ["a", "b"]


def test_async_methods_and_generators(rows: Rows) -> None:
    @dataclass
    class Soon:
        number: int

        @task
        async def add(self, more: int) -> int:
            await asyncio.sleep(0)
            return self.number + more

        @task
        def count(self) -> object:
            yield from range(self.number)

        @flow
        async def run(self) -> list[object]:
            added = await asyncio.gather(*(self.add(number) for number in range(3)))
            return [added, await self.add.submit(5), list(self.count()), await self.count.submit()]  # type: ignore[attr-defined,call-overload]

        @flow
        def stream(self) -> object:
            yield from self.count()  # type: ignore[misc]

    assert asyncio.run(Soon(2).run()) == [[2, 3, 4], 7, [0, 1], [0, 1]]
    assert list(Soon(3).stream()) == [0, 1, 2]  # type: ignore[call-overload]


def test_an_instance_that_is_false_or_iterable_is_an_instance_like_any_other() -> None:
    @dataclass
    class Empty:
        items: list[int]

        def __len__(self) -> int:
            return len(self.items)

        def __iter__(self) -> object:
            return iter(self.items)

        @task
        def add(self, more: int) -> int:
            return len(self.items) + more

    @flow
    def program() -> list[object]:
        return [Empty([]).add(1), Empty([]).add.map([1, 2]).result(), Empty([7, 8, 9]).add.map([1, 2]).result()]

    assert program() == [1, [1, 2], [4, 5]]


def test_a_method_can_be_called_outside_of_a_flow(rows: Rows) -> None:
    assert Shop("north").sell(1) == "north sells 1 for 1"
    assert Mall.found("a") == "Mall a"
    assert rows("SELECT flow, state FROM runs") == [("sell", "COMPLETED"), ("found", "COMPLETED")]


def test_methods_of_pydantic_attrs_and_slotted_classes() -> None:
    class Model(BaseModel):
        model_config = ConfigDict(ignored_types=(Task, Flow))

        name: str

        @task
        def hello(self) -> str:
            return self.name

    @attrs.frozen
    class Record:
        name: str

        @task
        def hello(self) -> str:
            return self.name

    class Slotted:
        __slots__ = ("name",)

        def __init__(self, name: str) -> None:
            self.name = name

        @task
        def hello(self) -> str:
            return self.name

    @dataclass(slots=True)
    class SlottedData:
        name: str

        @task
        def hello(self) -> str:
            return self.name

    @flow
    def program() -> list[str]:
        return [cls(name="x").hello() for cls in (Model, Record, Slotted, SlottedData)]  # type: ignore[attr-defined]

    assert program() == ["x"] * 4


def test_abstract_and_inherited_methods_keep_pythons_rules() -> None:
    class Base(ABC):
        @task
        @abstractmethod
        def name(self) -> str: ...

        @task
        def hello(self) -> str:
            return f"hello {self.name()}"

    class Child(Base):
        @task
        def name(self) -> str:
            return "child"

        @task
        def hello(self) -> str:
            return f"{super().hello()}!"

    @flow
    def program() -> str:
        return Child().hello()

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]
    assert program() == "hello child!"


# Objects that can be called


def test_an_object_with_call_is_the_instance_of_its_task(rows: Rows) -> None:
    @dataclass
    class Greeter:
        word: str

        def __call__(self, name: str) -> str:
            return f"{self.word} {name}"

    hello, bye = task(Greeter("hello")), task(Greeter("bye"))
    assert (hello.name, hello.key) == ("Greeter", "Greeter")
    greet = flow(Greeter("flow"))

    @flow
    def program() -> list[object]:
        return [hello("a"), bye("a"), bye.submit("b").result(), hello.map(["c", "d"]).result(), greet("e")]

    assert program() == ["hello a", "bye a", "bye b", ["hello c", "hello d"], "flow e"]
    assert greet("f") == "flow f"


def test_a_bound_method_made_a_task_keeps_its_instance() -> None:
    @dataclass
    class Adder:
        number: int

        def add(self, more: int) -> int:
            return self.number + more

    one, two = task(Adder(1).add), task(Adder(2).add)

    @flow
    def program() -> list[int]:
        return [one(5), two(5), one.with_options(retries=1)(6), two.submit(6).result()]

    assert program() == [6, 7, 7, 8]


def test_what_a_function_carries_along_does_not_hide_what_is_ours() -> None:
    def carrying(number: int) -> int:
        return number

    carrying.name = "other"  # type: ignore[attr-defined]
    carrying.fn = None  # type: ignore[attr-defined]
    carrying.extra = 5  # type: ignore[attr-defined]
    made = task(carrying)
    assert (made.name, made.fn, made.extra) == ("carrying", carrying, 5)  # type: ignore[attr-defined]


# Options


def test_with_options_keeps_what_is_not_named_and_what_it_is_bound_to() -> None:
    @task(retries=3, tags=["a"], timeout_seconds=5, task_run_name="{self.name}")
    def free(self: object) -> str:
        return "free"

    class Holder:
        name = "holder"
        method = free

        @flow(retries=2, log_prints=True, description="d")
        def run(self) -> str:
            return self.method.with_options(tags=["b"])()

    changed = Holder().method.with_options(retries=1, name="n")
    assert (changed.retries, changed.name, changed.key, changed.tags) == (1, "n", free.key, frozenset({"a"}))
    assert changed.bound[0].name == "holder"  # type: ignore[attr-defined]
    assert changed.with_options(retries=7).bound == changed.bound
    again = Holder().run.with_options(name="other")
    assert (again.name, again.policy.retries, again.log_prints, again.description) == ("other", 2, True, "d")
    assert again() == "free"
    assert Shop.tax.with_options(retries=1)(1) == 2
    assert Mall.found.with_options(retries=1)("x") == "Mall x"


def test_bound_tasks_and_flows_can_be_pickled_by_public_names() -> None:
    for made in (Shop("a").sell, Mall.found, Shop("a").open, Mall.franchise, Shop.tax):
        loaded = cloudpickle.loads(cloudpickle.dumps(made))
        assert loaded.bound == made.bound
        assert type(loaded) is type(made)
        assert b"with_bound" not in cloudpickle.dumps(made)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        pickle.dumps(Shop.sell.fn)  # why cloudpickle: under its name stands the task


# Identity


IDENTITY = """
    from dataclasses import dataclass
    from wfengine import Task

    class Base:
        @task
        def name(self, number=0):
            note(f"{type(self).__name__}-{getattr(self, 'label', '')}-{number}")
            return f"{type(self).__name__}-{getattr(self, 'label', '')}-{number}"

        @task
        def other(self):
            note(f"base-other")
            return "base-other"

    class First(Base):
        pass

    class Second(Base):
        @task
        def other(self):
            note("second-other")
            return "second-other"

    @dataclass
    class Labelled(Base):
        label: str

    @flow
    def main():
        values = CALLS
        if first_time("killed"):
            kill()
        return values

    main()
"""


def test_instances_and_classes_are_told_apart_when_a_run_is_resumed(program: Program, rows: Rows) -> None:
    calls = (
        "[First().name(1), Second().name(1), Labelled('a').name(1), Labelled('b').name(1), First().other(), Second().other(),"
        " *Labelled('a').name.map([2, 3]).result(), Labelled('c').name.submit(1).result()]"
    )
    program.write(IDENTITY.replace("CALLS", calls))
    program.run_and_be_killed()
    before = list(program.effects)
    assert len(before) == 9
    answer = program.resume()
    assert answer["result"] == repr([*before[:4], "base-other", "second-other", "Labelled-a-2", "Labelled-a-3", "Labelled-c-1"])
    assert program.effects == before


def test_another_instance_never_gets_the_recorded_result_of_the_first(program: Program) -> None:
    program.write(IDENTITY.replace("CALLS", "[Labelled('a').name(1), First().name(1)]"))
    program.run_and_be_killed()
    # Edited: in the place of each stands another one, of which one class only is opaque.
    program.write(IDENTITY.replace("CALLS", "[Labelled('b').name(1), Second().name(1), Labelled('a').name(1)]"))
    assert program.resume()["result"] == repr(["Labelled-b-1", "Second--1", "Labelled-a-1"])
    assert program.effects == ["Labelled-a-1", "First--1", "Labelled-b-1", "Second--1"]


def test_callables_of_one_class_are_told_apart_when_a_run_is_resumed(program: Program) -> None:
    text = """
        from dataclasses import dataclass

        @dataclass
        class Greeter:
            word: str

            def __call__(self, name):
                note(f"{self.word}-{name}")
                return f"{self.word}-{name}"

        hello, bye = task(Greeter("hello")), task(Greeter("bye"))

        @flow
        def main():
            values = CALLS
            if first_time("killed"):
                kill()
            return values

        main()
    """
    program.write(text.replace("CALLS", "[hello('a'), bye('a')]"))
    program.run_and_be_killed()
    program.write(text.replace("CALLS", "[bye('a'), hello('a'), bye('b')]"))
    assert program.resume()["result"] == repr(["bye-a", "hello-a", "bye-b"])
    assert program.effects == ["hello-a", "bye-a", "bye-b"]


def test_an_instance_without_a_canonical_form_is_named_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Plain:
        @task
        def work_plainly(self, number: int) -> int:
            return number

    @flow
    def program() -> list[int]:
        return [Plain().work_plainly(number) for number in range(3)]

    assert program() == [0, 1, 2]
    assert [record.getMessage() for record in caplog.records if "canonical" in record.getMessage()] == [
        "Task 'work_plainly': the argument self has no canonical form, so it does not help to tell calls apart on resume; "
        "their order does. Make the class of self a dataclass, or give the task key_args or a call_key."
    ]


def test_subflows_that_are_methods_of_two_classes_may_have_one_name(rows: Rows) -> None:
    @dataclass
    class One:
        @flow
        def run(self) -> int:
            return 1

    @dataclass
    class Two:
        @flow
        def run(self) -> int:
            return 2

    @flow
    def program() -> list[int]:
        return [One().run(), Two().run(), One().run()]

    assert program() == [1, 2, 1]
    assert rows.value("SELECT count(*) FROM runs WHERE flow = 'run'") == 3


# What cannot be stored


class Locked:
    """Holds what cannot be stored."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    @task
    def work(self, number: int) -> int:
        with self.lock:
            return number

    @flow
    def run(self) -> int:
        return self.work(1)


def test_an_instance_that_cannot_be_stored_stops_no_task_and_no_flow_starts_with_it(rows: Rows) -> None:
    @flow
    def program() -> int:
        return Locked().work(1)

    assert program() == 1
    with pytest.raises(ParameterError, match=r"Flow 'run' was not started: parameter 'self' \(Locked\) cannot be stored"):
        Locked().run()
    assert rows.value("SELECT count(*) FROM runs") == 1


# Killed and resumed


FLOW_METHOD = """
    from dataclasses import dataclass, field

    @dataclass
    class Pipeline:
        name: str
        steps: list = field(default_factory=list)

        def helper(self, value):
            return HELPED

        @task
        def step(self, number):
            note(f"{self.name}-{number}")
            return number

        @flow
        def run(self, count):
            self.steps.append("run")  # what is stored is the instance as it was given
            values = [self.step.submit(self.helper(number)).result() for number in range(count)]
            if first_time("killed"):
                kill()
            return [self.name, self.steps, values]

        @flow
        @classmethod
        def create(cls, name):
            note(f"create-{cls.__name__}")
            made = cls(name).step(1)
            if first_time("killed"):
                kill()
            return [cls.__name__, made]

        @classmethod
        @flow
        def create_below(cls, name):
            made = cls(name).step(1)
            if first_time("killed"):
                kill()
            return [cls.__name__, made]

        @staticmethod
        @flow
        def plain(name):
            made = Pipeline(name).step(1)
            if first_time("killed"):
                kill()
            return made

        def _nightly(self):
            made = self.step(1)
            if first_time("killed"):
                kill()
            return [type(self).__name__, made]

        nightly = flow(_nightly)

    class Child(Pipeline):
        pass

    if __name__ == "__main__":
        START
"""
STARTS = {
    "instance": ("Pipeline('a', ['x']).run(2)", "['a', ['x', 'run'], [0, 1]]", "Pipeline.run"),
    "inherited": ("Child('a').run(1)", "['a', ['run'], [0]]", "Pipeline.run"),
    "class method": ("Child.create('a')", "['Child', 1]", "Pipeline.create"),
    "class method above": ("Child.create_below('a')", "['Child', 1]", "Pipeline.create_below"),
    "static method": ("Pipeline.plain('a')", "1", "Pipeline.plain"),
    "assigned": ("Child('a').nightly()", "['Child', 1]", "Pipeline._nightly"),
}


@pytest.mark.parametrize("case", STARTS, ids=str)
def test_a_flow_method_is_resumed_on_an_equal_instance_in_another_process(program: Program, rows: Rows, case: str) -> None:
    start, result, name = STARTS[case]
    program.write(FLOW_METHOD.replace("START", start).replace("HELPED", "value"))
    program.run_and_be_killed()
    assert rows.value("SELECT entrypoint FROM runs") == f"file:{program.path.resolve()}:{name}"
    effects = [effect for effect in program.effects if not effect.startswith("create")]
    assert program.resume()["result"] == result
    assert [effect for effect in program.effects if not effect.startswith("create")] == effects


def test_editing_a_method_that_is_called_through_self_is_editing_the_flow(program: Program) -> None:
    text = FLOW_METHOD.replace("START", "Pipeline('a').run(2)")
    program.write(text.replace("HELPED", "value"))
    program.run_and_be_killed()
    program.write(text.replace("HELPED", "value + 1"))
    # A person resumes edited code: the call with new inputs runs, the one with inputs that stayed the same does not.
    assert program.resume()["result"] == "['a', ['run'], [1, 2]]"
    assert program.effects == ["a-0", "a-1", "a-2"]


def test_a_flow_method_of_a_module_is_found_by_its_name() -> None:
    assert entrypoint_of(Shop.open.fn) == f"file:{__file__}:Shop.open" or str(entrypoint_of(Shop.open.fn)).startswith("module:")


LOCAL_CLASS = """
from helpers import first_time, kill, note
from wfengine import flow, task

def make():
    class Local:
        def __init__(self, name):
            self.name = name

        @task(retries=1)
        def step(self, number):
            note(f"{self.name}-{number}")
            return number

        @flow
        def run(self):
            value = self.step(1)
            if first_time():
                kill()
            return [self.name, value, self.step(2)]

    return Local

if __name__ == "__main__":
    make()("a").run()
"""


def test_a_flow_method_of_a_local_class_is_stored_with_its_class(program: Program) -> None:
    (program.folder / "helpers.py").write_text(PROGRAM_HEAD)
    program.path.write_text(LOCAL_CLASS)
    program.run_and_be_killed()
    answer = program.resume()
    assert answer.get("result") == "['a', 1, 2]", answer
    assert program.effects == ["a-1", "a-2"]


def test_a_method_that_is_cut_off_runs_again_on_an_equal_instance(program: Program) -> None:
    program.write(
        """
        from dataclasses import dataclass

        @dataclass
        class Worker:
            name: str

            @task
            def work(self, number):
                note(f"{self.name}-{number}")
                if number == 2 and first_time():
                    kill()
                return f"{self.name}-{number}"

        @flow
        def main():
            workers = [Worker("a"), Worker("b")]
            return [future.result() for worker in workers for future in worker.work.map([1, 2])]

        main()
        """
    )
    program.run_and_be_killed()
    assert program.resume()["result"] == repr(["a-1", "a-2", "b-1", "b-2"])
    assert {effect: program.effects.count(effect) for effect in program.effects}.keys() == {"a-1", "a-2", "b-1", "b-2"}


def test_flows_in_classes_are_started_from_the_command_line(program: Program) -> None:
    program.write(FLOW_METHOD.replace("START", "pass").replace("HELPED", "value"))
    (program.folder / "killed").touch()
    done = program.python("-m", "wfengine", "run", f"{program.path}:Child.create", "-p", "name=a", "--quiet")
    assert (done.code, program.effects) == (0, ["create-Child", "a-1"]), done
    done = program.python("-m", "wfengine", "run", f"{program.path}:Pipeline.run", "-p", "count=1")
    assert done.code != 0
    assert "missing argument 'self'" in done.err


def test_a_flow_of_methods_is_drawn() -> None:
    @flow
    def program() -> None:
        shop = Shop("north")
        first = shop.sell.submit(1)
        shop.tax(first)  # type: ignore[arg-type]
        Mall.found.map(["a"])

    graph = str(program.generate_mermaid_graph())
    assert ["sell-0" in graph, "tax-0" in graph, "found-0" in graph, "-->" in graph] == [True] * 4
