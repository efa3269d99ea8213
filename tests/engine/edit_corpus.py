"""Generated flows and edits, and what a person may expect of them: a model that shares no code with the engine.

A program is a small tree of statements. It can be written as Python (`source`), and it can be walked by `Walk`, which knows
nothing but the rule: a call is the same call when scope, task, argument and occurrence are the same; what completed is
answered from the record, what failed and was handled too, everything else is executed. A task returns a text that holds its
name, the version of its body, and its argument, so that the value of another call is seen at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

# ------------------------------------------------------------------------------------------- programs


@dataclass(frozen=True)
class Text:
    """A literal argument."""

    text: str


@dataclass(frozen=True)
class Ref:
    """The value that an earlier statement gave a variable."""

    name: str


Argument: TypeAlias = Text | Ref


@dataclass(frozen=True)
class Ask:
    """One call of a task."""

    task: str
    argument: Argument


@dataclass(frozen=True)
class Call:
    """`to = task(argument)`; `caught`: its ValueError is handled."""

    to: str
    ask: Ask
    caught: bool = False


@dataclass(frozen=True)
class Submit:
    """Several calls submitted at once, then their results in order."""

    to: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Map:
    """One task over several texts."""

    to: str
    task: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Gather:
    """Several calls in `asyncio.gather`, their failures as values."""

    to: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Loop:
    """One task over `range(bound)`."""

    to: str
    task: str
    prefix: str
    bound: int


@dataclass(frozen=True)
class Sub:
    """A subflow."""

    to: str
    flow: str
    argument: Argument


@dataclass(frozen=True)
class Branch:
    """Two ways, chosen by whether the length of a value is even."""

    of: Argument
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True)
class Return:
    """An early end."""


Statement: TypeAlias = "Call | Submit | Map | Gather | Loop | Sub | Branch | Return"
Assigning: TypeAlias = "Call | Submit | Map | Gather | Loop | Sub"
Block: TypeAlias = tuple[Statement, ...]


@dataclass(frozen=True)
class Body:
    """What a task does: it refuses some arguments, may call another task, and returns a text."""

    version: int = 0
    refuses: tuple[str, ...] = ()
    calls: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class Program:
    """A file with tasks and flows; `main` is the flow that is run."""

    is_async: bool
    tasks: dict[str, Body]
    flows: dict[str, Block]


def callees(block: Block) -> set[str]:
    """Return the tasks and subflows that a block calls."""
    found: set[str] = set()
    for statement in block:
        match statement:
            case Call(_, ask):
                found.add(ask.task)
            case Submit(_, asks) | Gather(_, asks):
                found.update(ask.task for ask in asks)
            case Map(_, name) | Loop(_, name) | Sub(_, name):
                found.add(name)
            case Branch(_, then, otherwise):
                found |= callees(then) | callees(otherwise)
    return found


# ------------------------------------------------------------------------------------------- as Python

HEAD = """\
from __future__ import annotations
import asyncio, hashlib, os, signal
from wfengine import flow, task

def note(name, argument):
    line = f"{name}({argument})"
    descriptor = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (line + "\\n").encode())
    os.close(descriptor)
    if os.environ.get("CUT_OFF") == "in " + line:
        os.kill(os.getpid(), signal.SIGKILL)

def short(text):
    return text if len(text) <= 60 else "#" + hashlib.sha256(text.encode()).hexdigest()[:12]

def point(name):
    if os.environ.get("CUT_OFF") == "kill " + name:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("CUT_OFF") == "raise " + name:
        raise RuntimeError("cut off")

"""


class _Source:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.lines: list[str] = []
        self.word = "async def" if program.is_async else "def"
        self.wait = "await " if program.is_async else ""
        self.points = 0

    def text(self) -> str:
        for name, body in self.program.tasks.items():
            self._task(name, body)
        for name in sorted(self.program.flows, reverse=True):  # subflows first
            self.lines += [f"@flow(durability='process', name='{name}')", f"{self.word} {name}(given='given'):", "    out = []"]
            self.points = 0
            self._block(self.program.flows[name], "    ", name)
            self.lines += ["    return out", ""]
        return HEAD + "\n".join(self.lines)

    def _task(self, name: str, body: Body) -> None:
        mark = f"{name}~{body.version}"
        self.lines.append("@task" if body.alias is None else f"@task(aliases=['{body.alias}'])")
        self.lines += [f"{self.word} {name}(argument):", f"    note('{mark}', argument)"]
        inner = "argument"
        if body.calls is not None:
            self.lines.append(f"    inner = {self.wait}{body.calls}(argument + 'i')")
            inner = "inner"
        if body.refuses:
            self.lines += [f"    if argument in {body.refuses!r}:", f"        raise ValueError('{mark} refused ' + argument)"]
        self.lines += [f"    return '{mark}(' + short({inner}) + ')'", ""]

    def _block(self, block: Block, margin: str, flow: str) -> None:
        if not block:
            self.lines.append(f"{margin}pass")
        for statement in block:
            for line in self._statement(statement, flow, margin):
                self.lines.append(margin + line)
            if not isinstance(statement, Return | Branch):
                self.lines += [f"{margin}out.append({statement.to})", f"{margin}point('{flow}{self.points}')"]
                self.points += 1

    def _statement(self, statement: Statement, flow: str, margin: str) -> Iterator[str]:
        match statement:
            case Call(to, ask, False):
                yield f"{to} = {self.wait}{_asked(ask)}"
            case Call(to, ask, True):
                yield "try:"
                yield f"    {to} = {self.wait}{_asked(ask)}"
                yield "except ValueError as error:"
                yield f"    {to} = 'caught ' + str(error)"
            case Submit(to, asks):
                submitted = ", ".join(f"{ask.task}.submit({_argument(ask.argument)})" for ask in asks)
                yield f"futures = [{submitted}]"
                yield f"{to} = short('+'.join([future.result() for future in futures]))"
            case Map(to, task, texts):
                yield f"{to} = short('+'.join({task}.map({list(texts)!r}).result()))"
            case Gather(to, asks):
                gathered = ", ".join(map(_asked, asks))
                yield f"values = await asyncio.gather({gathered}, return_exceptions=True)"
                yield f"{to} = short('+'.join(map(str, values)))"
            case Loop(to, task, prefix, bound):
                yield f"{to} = ''"
                yield f"for number in range({bound}):"
                yield f"    {to} = short({to} + {self.wait}{task}(f'{prefix}{{number}}'))"
            case Sub(to, name, argument):
                yield f"{to} = short('+'.join({self.wait}{name}({_argument(argument)})))"
            case Branch(of, then, otherwise):
                self.lines.append(f"{margin}if len({_argument(of)}) % 2 == 0:")
                self._block(then, margin + "    ", flow)
                self.lines.append(f"{margin}else:")
                self._block(otherwise, margin + "    ", flow)
            case Return():
                yield "return out"


def _argument(argument: Argument) -> str:
    return repr(argument.text) if isinstance(argument, Text) else argument.name


def _asked(ask: Ask) -> str:
    return f"{ask.task}({_argument(ask.argument)})"


def source(program: Program) -> str:
    """Return the program as a Python file."""
    return _Source(program).text()


# ------------------------------------------------------------------------------------------- the model

Key: TypeAlias = tuple[object, ...]  # () for the body of main; else (scope, name, argument, occurrence)


@dataclass(frozen=True)
class Record:
    """What the journal holds of one call."""

    state: str  # COMPLETED, FAILED, or anything else for a call that was cut off
    value: str | tuple[str, ...] = ""  # or the text of the failure
    fatal: bool = False


class Refused(Exception):
    """A task's own failure, or the flow's; `keys` are the calls it passed through."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.keys: list[Key] = []


class CutOff(Exception):
    """The process dies here."""


class _Returned(Exception):
    pass


@dataclass
class Walk:
    """One execution of `main`, given what earlier ones left."""

    program: Program
    recorded: dict[Key, Record] = field(default_factory=dict)
    cut_off: str = ""
    orphaned: set[Key] = field(default_factory=set)  # by an earlier execution, inside subflows
    executed: list[str] = field(default_factory=list)
    decisions: list[tuple[str, str, str]] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    result: list[str] | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        self.outcomes: dict[Key, Record] = {}
        self.claimed: set[Key] = set()
        self.replayed: set[Key] = set()
        self._counts: Counter[Key] = Counter()
        self._out: list[str] = []

    def go(self) -> Walk:
        """Walk to the end: its result, its failure, or the place where it is cut off."""
        try:
            self.result = self._flow("main", (), "given")
        except CutOff:
            pass
        except Refused as refusal:
            self.failure = str(refusal)
            for key in refusal.keys:
                known = self.outcomes.get(key)
                if known is not None:
                    self.outcomes[key] = replace(known, fatal=True)
        return self

    def after(self) -> dict[Key, Record]:
        """Return what the journal holds afterwards."""
        return {**self.recorded, **self.outcomes}

    def orphaned_inside(self) -> set[Key]:
        """Return the orphans of subflows that completed in this execution: they stay orphans when the subflow replays."""
        return {
            key
            for key, record in self.recorded.items()
            if record.state == "COMPLETED" and key not in self.claimed and key[0] in self.outcomes
        }

    def orphans(self) -> list[tuple[object, ...]]:
        """Return (task, argument) of completed calls in scopes that were executed, for which nobody asked."""
        return sorted(
            key[1:3]
            for key, record in self.recorded.items()
            if record.state == "COMPLETED"
            and key not in self.claimed
            and (key[0] == () or (key[0] in self.claimed and (key[0] not in self.replayed or key in self.orphaned)))
        )

    def _flow(self, name: str, scope: Key, given: str) -> list[str]:
        variables, out = {"given": given}, list[str]()
        number = iter(range(1000))
        with contextlib.suppress(_Returned):
            self._block(self.program.flows[name], name, scope, variables, out, number)
        return out

    def _block(
        self, block: Block, flow: str, scope: Key, variables: dict[str, str], out: list[str], number: Iterator[int]
    ) -> None:
        for statement in block:
            if isinstance(statement, Return):
                raise _Returned
            if isinstance(statement, Branch):
                even = len(_value(statement.of, variables)) % 2 == 0
                skipped = _points(statement.then)
                if not even:  # the points of the way not taken are numbered too
                    for _ in range(skipped):
                        next(number)
                self._block(statement.then if even else statement.otherwise, flow, scope, variables, out, number)
                if even:
                    for _ in range(_points(statement.otherwise)):
                        next(number)
                continue
            variables[statement.to] = self._statement(statement, scope, variables)
            out.append(variables[statement.to])
            self._point(f"{flow}{next(number)}")

    def _point(self, name: str) -> None:
        self.points.append(name)
        if self.cut_off == f"kill {name}":
            raise CutOff
        if self.cut_off == f"raise {name}":
            raise Refused("cut off")

    def _statement(self, statement: Assigning, scope: Key, variables: dict[str, str]) -> str:
        match statement:
            case Call(_, ask, caught):
                try:
                    return str(self._call(scope, ask.task, _value(ask.argument, variables)))
                except Refused as refusal:
                    if not caught or str(refusal) == "cut off":
                        raise
                    return f"caught {refusal}"
            case Submit(_, asks):
                return self._all(scope, [(ask.task, _value(ask.argument, variables)) for ask in asks])
            case Map(_, task, texts):
                return self._all(scope, [(task, text) for text in texts])
            case Gather(_, asks):
                values = []
                for ask in asks:
                    try:
                        values.append(str(self._call(scope, ask.task, _value(ask.argument, variables))))
                    except Refused as refusal:
                        values.append(str(refusal))
                return short("+".join(values))
            case Loop(_, task, prefix, bound):
                looped = ""
                for number in range(bound):
                    looped = short(looped + str(self._call(scope, task, f"{prefix}{number}")))
                return looped
            case Sub(_, name, argument):
                return short("+".join(self._call(scope, name, _value(argument, variables))))

    def _all(self, scope: Key, asked: list[tuple[str, str]]) -> str:
        values, first = [], None
        for task, argument in asked:
            try:
                values.append(str(self._call(scope, task, argument)))
            except Refused as refusal:
                first = first or refusal
        if first is not None:
            raise first
        return short("+".join(values))

    def _call(self, scope: Key, name: str, argument: str) -> str | tuple[str, ...]:
        body = self.program.tasks.get(name)
        occurrence = self._counts[scope, name, argument]
        self._counts[scope, name, argument] += 1
        key: Key = (scope, name, argument, occurrence)
        known = None
        for possible in (name, body.alias if body is not None else None):
            candidate = (scope, possible, argument, occurrence)
            if possible is not None and candidate in self.recorded and candidate not in self.claimed:
                key, known = candidate, self.recorded[candidate]
                break
        self.claimed.add(key)
        if known is not None and (known.state == "COMPLETED" or (known.state == "FAILED" and not known.fatal)):
            self.decisions.append(("REPLAY", name, argument))
            self.replayed.add(key)
            if known.state == "COMPLETED":
                return known.value
            refusal = Refused(str(known.value))
            refusal.keys.append(key)
            self.outcomes[key] = known
            raise refusal
        self.decisions.append(("NEW" if known is None else "RERUN", name, argument))
        self.outcomes[key] = Record("RUNNING")
        try:
            value = tuple(self._flow(name, key, argument)) if body is None else self._task(name, body, key, argument)
        except Refused as refusal:
            self.outcomes[key] = Record("FAILED", str(refusal))
            refusal.keys.append(key)
            raise
        self.outcomes[key] = Record("COMPLETED", value)
        return value

    def _task(self, name: str, body: Body, key: Key, argument: str) -> str:
        mark = f"{name}~{body.version}"
        self.executed.append(f"{mark}({argument})")
        if self.cut_off == f"in {mark}({argument})":
            raise CutOff
        inner = argument if body.calls is None else str(self._call(key, body.calls, argument + "i"))
        if argument in body.refuses:
            raise Refused(f"{mark} refused {argument}")
        return f"{mark}({short(inner)})"


def short(text: str) -> str:
    """Keep a text short, as the generated programs do, so that it stands in the journal's rows in full."""
    return text if len(text) <= 60 else "#" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _value(argument: Argument, variables: dict[str, str]) -> str:
    return argument.text if isinstance(argument, Text) else variables[argument.name]


def _points(block: Block) -> int:
    return sum(
        _points(statement.then) + _points(statement.otherwise)
        if isinstance(statement, Branch)
        else not isinstance(statement, Return)
        for statement in block
    )


# ------------------------------------------------------------------------------------------- generated programs

TASKS = ("fetch", "clean", "score", "wrap")
SUBFLOWS = ("north", "south")
WORDS = "abcdefgh"
REFUSED = ("bad", "worse")


class Maker:
    """Makes programs and edits from one random source."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.number = 0

    def program(self, *, is_async: bool) -> Program:
        """Return a program."""
        dice = self.dice
        tasks = {name: Body() for name in TASKS}
        tasks["score"] = Body(refuses=REFUSED)
        tasks["wrap"] = Body(calls=dice.choice(("fetch", "score", "clean")), refuses=REFUSED)
        flows = {name: self._block(dice.randint(1, 3), is_async, ("given",), subflows=False) for name in SUBFLOWS}
        flows["main"] = self._block(dice.randint(4, 7), is_async, (), subflows=True)
        return Program(is_async, tasks, flows)

    def _block(self, size: int, is_async: bool, known: tuple[str, ...], *, subflows: bool) -> Block:
        block: list[Statement] = []
        names = list(known)
        for _ in range(size):
            statement = self.statement(is_async, names, subflows=subflows)
            block.append(statement)
            if not isinstance(statement, Branch):
                names.append(statement.to)
        return tuple(block)

    def statement(self, is_async: bool, names: list[str], *, subflows: bool) -> Assigning | Branch:
        """Return a statement that may use the variables `names`."""
        self.number += 1
        to, dice = f"v{self.number}", self.dice
        kinds = ["call", "call", "caught", "caught", "loop", "branch", "fatal"]
        kinds += ["gather", "gather"] if is_async else ["submit", "submit", "map", "map"]
        kinds += ["sub", "sub"] if subflows else []
        match dice.choice(kinds):
            case "call":
                return Call(to, self.ask(names))
            case "caught":
                return Call(to, Ask(dice.choice(("score", "wrap")), Text(dice.choice((*REFUSED, *WORDS[:3])))), caught=True)
            case "fatal" if dice.random() < 0.3:
                return Call(to, Ask("score", Text(dice.choice(REFUSED))))
            case "submit":
                return Submit(to, tuple(self.ask(names) for _ in range(dice.randint(2, 4))))
            case "map":
                return Map(to, dice.choice(TASKS), tuple(dice.choices(WORDS, k=dice.randint(2, 5))))
            case "gather":
                asks = [self.ask(names) for _ in range(dice.randint(2, 3))]
                return Gather(to, (*asks, Ask("score", Text(dice.choice((*REFUSED, *WORDS[:2]))))))
            case "loop":
                return Loop(to, dice.choice(TASKS), dice.choice(WORDS[:3]), dice.randint(1, 4))
            case "sub":
                return Sub(to, dice.choice(SUBFLOWS), self.argument(names))
            case "branch":
                inner = [replace(Call("", self.ask(names)), to=f"{to}{side}") for side in "xy"]
                return Branch(self.argument(names), (inner[0],), (inner[1],))
            case _:
                return Call(to, self.ask(names))

    def ask(self, names: list[str]) -> Ask:
        """Return a call with an argument that no task refuses."""
        return Ask(self.dice.choice(TASKS), self.argument(names))

    def argument(self, names: list[str]) -> Argument:
        """Return a literal, or one of the variables."""
        if names and self.dice.random() < 0.5:
            return Ref(self.dice.choice(names))
        return Text(self.dice.choice(WORDS))

    # ---- edits

    def edit(self, program: Program, kind: str) -> Program:
        """Return the program after one edit of that kind; of a subflow, one time in four."""
        if kind == "task body":
            return self._edit_body(program)
        if kind.startswith("rename"):
            return self._rename(program, with_alias=kind == "rename with alias")
        flow = "main" if self.dice.random() < 0.75 else self.dice.choice(SUBFLOWS)
        block = list(program.flows[flow])
        getattr(self, "_" + kind.replace(" ", "_"))(block, program.is_async, flow == "main")
        known = ["given"]
        return replace(program, flows={**program.flows, flow: _mended(tuple(block), known)})

    def _add(self, block: list[Statement], is_async: bool, in_main: bool) -> None:
        place = self.dice.randint(0, len(block))
        names = [statement.to for statement in block[:place] if not isinstance(statement, Branch | Return)]
        block.insert(place, self.statement(is_async, names, subflows=in_main))

    def _remove(self, block: list[Statement], is_async: bool, in_main: bool) -> None:
        del block[self.dice.randrange(len(block))]

    def _swap(self, block: list[Statement], is_async: bool, in_main: bool) -> None:
        one, other = self.dice.randrange(len(block)), self.dice.randrange(len(block))
        block[one], block[other] = block[other], block[one]

    def _argument_changed(self, block: list[Statement], is_async: bool, in_main: bool) -> None:
        place = self.dice.randrange(len(block))
        text = Text(self.dice.choice("mnopq"))
        match block[place]:
            case Call(_, ask) as call:
                block[place] = replace(call, ask=Ask(ask.task, text))
            case Submit(_, asks) | Gather(_, asks) as several:
                chosen = self.dice.randrange(len(asks))
                changed = (*asks[:chosen], Ask(asks[chosen].task, text), *asks[chosen + 1 :])
                block[place] = replace(several, asks=changed)
            case Map(_, _, texts) as mapped:
                chosen = self.dice.randrange(len(texts))
                block[place] = replace(mapped, texts=(*texts[:chosen], text.text, *texts[chosen + 1 :]))
            case Loop() as loop:
                block[place] = replace(loop, prefix=text.text)
            case Sub() as sub:
                block[place] = replace(sub, argument=text)
            case _:
                block.insert(place, Call("extra", Ask("fetch", text)))

    def _bound(self, block: list[Statement], is_async: bool, in_main: bool) -> None:
        for place, statement in enumerate(block):
            if isinstance(statement, Loop):
                block[place] = replace(statement, bound=self.dice.choice([n for n in range(6) if n != statement.bound]))
                return
            if isinstance(statement, Map):
                texts = list(statement.texts)
                self.dice.shuffle(texts)
                texts = texts[1:] if self.dice.random() < 0.5 else [*texts, "z", texts[0]]
                block[place] = replace(statement, texts=tuple(texts))
                return
        block.insert(0, Loop("looped", "clean", "a", 2))

    def _control_flow(self, block: list[Statement], is_async: bool, in_main: bool) -> None:
        place, chosen = self.dice.randrange(len(block)), self.dice.random()
        statement = block[place]
        if isinstance(statement, Branch):
            block[place] = Branch(statement.of, statement.otherwise, statement.then)
        elif isinstance(statement, Call) and chosen < 0.3:
            block[place] = replace(statement, caught=True)
        elif isinstance(statement, Submit) and chosen < 0.6:
            calls = [Call(f"{statement.to}n{number}", ask) for number, ask in enumerate(statement.asks)]
            block[place : place + 1] = calls
        elif chosen < 0.7:
            block.insert(place, Return())
        else:
            block[place] = Branch(Text(self.dice.choice(("even", "odd"))), (statement,), ())

    def _edit_body(self, program: Program) -> Program:
        name = self.dice.choice(TASKS) if self.dice.random() < 0.5 else "score"
        body = program.tasks[name]
        mended = () if self.dice.random() < 0.7 else body.refuses
        return replace(program, tasks={**program.tasks, name: replace(body, version=body.version + 1, refuses=mended)})

    def _rename(self, program: Program, *, with_alias: bool) -> Program:
        old, new = self.dice.choice(TASKS), "renamed"
        tasks = {}
        for name, body in program.tasks.items():
            changed = replace(body, calls=new) if body.calls == old else body
            tasks[new if name == old else name] = replace(changed, alias=old) if name == old and with_alias else changed
        return replace(program, tasks=tasks, flows={name: _renamed(block, old, new) for name, block in program.flows.items()})


KINDS = (
    "add", "remove", "swap", "rename", "rename with alias", "argument changed", "bound", "task body", "control flow",
)  # fmt: skip


def _renamed(block: Block, old: str, new: str) -> Block:
    def ask(one: Ask) -> Ask:
        return replace(one, task=new) if one.task == old else one

    out: list[Statement] = []
    for statement in block:
        match statement:
            case Call():
                out.append(replace(statement, ask=ask(statement.ask)))
            case Submit() | Gather():
                out.append(replace(statement, asks=tuple(map(ask, statement.asks))))
            case Map() | Loop():
                out.append(replace(statement, task=new if statement.task == old else statement.task))
            case Branch(of, then, otherwise):
                out.append(Branch(of, _renamed(then, old, new), _renamed(otherwise, old, new)))
            case _:
                out.append(statement)
    return tuple(out)


def _mended(block: Block, known: list[str]) -> Block:
    """Replace references to variables that an edit took away. Those of a branch count as unknown after it."""

    def argument(one: Argument) -> Argument:
        return Text("gone") if isinstance(one, Ref) and one.name not in known else one

    def ask(one: Ask) -> Ask:
        return Ask(one.task, argument(one.argument))

    out: list[Statement] = []
    for statement in block:
        match statement:
            case Call():
                out.append(replace(statement, ask=ask(statement.ask)))
            case Submit() | Gather():
                out.append(replace(statement, asks=tuple(map(ask, statement.asks))))
            case Sub():
                out.append(replace(statement, argument=argument(statement.argument)))
            case Branch(of, then, otherwise):
                out.append(Branch(argument(of), _mended(then, list(known)), _mended(otherwise, list(known))))
            case _:
                out.append(statement)
        if not isinstance(statement, Branch | Return):
            known.append(statement.to)
    return tuple(out)
