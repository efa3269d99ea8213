"""Values through the journal: a run is cut off by a real Ctrl-C, resumed, and what tasks returned comes back as it was."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wfengine import flow, task
from wfengine_journal.errors import ParameterError, RecordedError, ValueNotStorableError

if TYPE_CHECKING:
    from conftest import Program, Rows

#: Expressions whose values must come back with type and content; each is evaluated in the program's own process.
EXPRESSIONS = [
    "float('nan')", "float('inf')", "-float('inf')", "-0.0", "0.1 + 0.2", "2 ** 63", "10 ** 400", "True", "None", "''",
    "'\\ud800'",
    "'a\\x00b'", "'\\U0001f9a4'", "b'\\x00\\xff'", "bytearray(b'ab')", "1 + 2j", "(1, (2, [3]))", "[1, (2,)]", "[]", "{}", "()",
    "set()", "{1, 2, 3}", "frozenset({'a'})", "{1: 'int key', '1': 'str key'}", "{(1, 2): 'tuple key'}", "{None: 1, True: 2}",
    "{'nested': [{'x': (1, {2})}]}", "datetime.datetime(2026, 3, 29, 2, 30)",
    "datetime.datetime(2026, 3, 29, 2, 30, tzinfo=datetime.timezone.utc)",
    "datetime.datetime(2026, 3, 29, 2, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45)))",
    "datetime.date(2026, 11, 22)", "datetime.time(23, 59)", "datetime.timedelta(days=-1, microseconds=1)",
    "decimal.Decimal('1.10')", "decimal.Decimal('NaN')", "fractions.Fraction(1, 3)", "uuid.UUID(int=5)",
    "Path('/a/b')", "range(3)", "Ellipsis", "Colour.RED", "Order(1, 'x')", "Point(1, 2)", "collections.OrderedDict(a=1)",
    "collections.Counter('aab')", "collections.deque([1], maxlen=3)", "zoneinfo.ZoneInfo('Europe/Berlin')", "int", "len",
    "ValueError('an exception as a value')", "re.compile('a+')", "array.array('i', [1, 2])", "types.SimpleNamespace(a=1)",
]  # fmt: skip

VALUES = """
    import array, collections, dataclasses, decimal, enum, fractions, re, types, zoneinfo

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Order:
        number: int
        name: str

    Point = collections.namedtuple("Point", "x y")

    EXPRESSIONS = {expressions!r}

    def described(value):
        # Types as well as contents, at every level: 1 is not True, and a list is no tuple.
        if isinstance(value, dict):
            return (type(value).__name__, [(described(key), described(item)) for key, item in value.items()])
        if isinstance(value, (list, tuple, collections.deque)):
            return (type(value).__name__, [described(item) for item in value])
        if isinstance(value, (set, frozenset)):
            return (type(value).__name__, sorted(map(repr, map(described, value))))
        return (type(value).__module__, type(value).__qualname__, repr(value))

    @task
    def make(number):
        note(f"make-{{number}}")
        return eval(EXPRESSIONS[number])

    @task
    def cut_off():
        if first_time():
            raise KeyboardInterrupt

    @flow
    def values():
        found = [make(number) for number in range(len(EXPRESSIONS))]
        cut_off()
        differing = [
            text for text, value in zip(EXPRESSIONS, found)
            if described(value) != described(eval(text))
        ]
        assert type(found[EXPRESSIONS.index("Order(1, 'x')")]) is Order
        return differing

    if __name__ == "__main__":
        values()
"""


def test_values_of_all_kinds_come_back_type_exact_after_a_crash(program: Program, rows: Rows) -> None:
    program.write(VALUES.format(expressions=EXPRESSIONS))
    assert program.run().code != 0
    assert rows.state()[0] == "CRASHED"
    assert program.resume()["result"] == "[]"
    assert program.effects == [f"make-{number}" for number in range(len(EXPRESSIONS))]


def unstorable() -> object:
    return threading.Lock()


def test_a_result_that_cannot_be_pickled_fails_its_task_when_it_ends(rows: Rows) -> None:
    attempts: list[int] = []

    @task(retries=3)
    def locks() -> object:
        attempts.append(1)
        return unstorable()

    @flow
    def once() -> None:
        locks()

    with pytest.raises(ValueNotStorableError, match=r"the result of task run.*'locks'.*lock") as caught:
        once()
    assert "Return plain data" in str(caught.value)
    assert attempts == [1]  # another attempt would return the same kind of value
    ((state, error),) = rows("SELECT state, error FROM tasks")
    assert state == "FAILED"
    assert "ValueNotStorableError" in str(error)
    assert rows.state() == ("FAILED", "Failed")


def test_a_flow_goes_on_after_it_caught_that_a_result_could_not_be_stored(rows: Rows) -> None:
    @task
    def locks() -> object:
        return unstorable()

    @flow
    def catching() -> str:
        try:
            locks.submit().result()
        except ValueNotStorableError:
            return "caught"
        return "not caught"

    assert catching() == "caught"
    assert rows.state()[0] == "COMPLETED"


def test_a_flow_result_that_cannot_be_stored_fails_the_flow(rows: Rows) -> None:
    @flow
    def locked() -> object:
        return unstorable()

    with pytest.raises(ValueNotStorableError, match="the result of flow run"):
        locked()
    assert rows.state()[0] == "FAILED"


class Unpicklable(Exception):
    """Its text is made of something that cannot be stored, so without it the exception would not be the same."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.parts = [text, threading.Lock()]

    def __str__(self) -> str:
        return str(self.parts[0])


class Misbehaving(Exception):
    """An exception that cannot even be shown."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_exception_that_cannot_be_pickled_is_raised_as_itself_and_recorded_as_text(rows: Rows) -> None:
    @task
    def fails() -> None:
        raise Unpicklable("what happened")

    @flow
    def failing() -> None:
        fails()

    with pytest.raises(Unpicklable, match="what happened"):
        failing()
    ((kind, message, data),) = rows("SELECT type, message, data FROM error WHERE id = 1")
    assert str(kind).endswith("Unpicklable")
    assert (message, data) == ("what happened", None)
    assert "raise Unpicklable" in str(rows.value("SELECT traceback FROM error WHERE id = 1"))


def test_an_exception_that_cannot_be_shown_hides_nothing(rows: Rows) -> None:
    @task
    def fails() -> None:
        raise Misbehaving

    @flow
    def failing() -> None:
        fails()

    with pytest.raises(Misbehaving):
        failing()
    assert rows("SELECT state FROM tasks") == [("FAILED",)]


def test_a_recorded_exception_that_cannot_come_back_is_caught_by_its_recorded_form_on_resume(
    program: Program, rows: Rows
) -> None:
    program.write(
        """
        import threading
        from wfengine_journal.errors import RecordedError

        class Odd(Exception):
            def __init__(self, text):
                super().__init__(text)
                self.parts = [text, threading.Lock()]

            def __str__(self):
                return str(self.parts[0])

        @task
        def fails():
            note("fails")
            raise Odd("what happened")

        @task
        def cut_off():
            if first_time():
                raise KeyboardInterrupt

        @flow
        def failing():
            try:
                fails()
            except (Odd, RecordedError) as error:
                caught = type(error).__name__ + "/" + str(error)
            cut_off()
            return caught

        if __name__ == "__main__":
            failing()
        """
    )
    program.run()
    answer = program.resume(recovery=True)
    assert answer["result"] == f"'{RecordedError.__name__}/__main__.Odd: what happened'"
    assert program.effects == ["fails"]


def test_a_huge_value_is_stored_once_however_often_it_is_returned(rows: Rows) -> None:
    size = 2 * 1024 * 1024

    @task
    def same(number: int) -> str:
        return "x" * size

    @flow
    def many() -> int:
        return sum(len(same(number)) for number in range(5))

    assert many() == 5 * size
    assert rows("SELECT size FROM value WHERE codec = 'json'") == [(size + 2,)]  # as JSON text, with its quotes
    assert rows.path.stat().st_size < 8 * 1024 * 1024
    assert rows.value("SELECT max(length(result)) FROM tasks") <= 300  # type: ignore[operator]  # a preview


def test_arguments_that_cannot_be_stored_stop_nothing(rows: Rows) -> None:
    @task
    def uses(lock: object, number: int) -> int:
        return number

    @flow
    def passing() -> int:
        return uses(threading.Lock(), 3)

    assert passing() == 3
    assert '"number":3' in str(rows.value("SELECT inputs FROM tasks"))
    assert "lock" in str(rows.value("SELECT json_extract(inputs, '$.lock') FROM tasks"))
    assert rows("SELECT name, hash, python_type FROM argument") == [("lock", None, "_thread.lock")]


def test_a_flow_parameter_that_cannot_be_stored_is_refused_before_anything_is_written(rows: Rows) -> None:
    ran: list[int] = []

    @flow
    def needs(lock: object) -> None:
        ran.append(1)

    with pytest.raises(ParameterError, match=r"'needs' was not started: parameter 'lock'.*cannot be stored"):
        needs(threading.Lock())
    assert ran == []
    assert rows.value("SELECT count(*) FROM runs") == 0
    assert rows.value("SELECT count(*) FROM value") == 0


DAMAGED = """
    @task
    def small():
        note("small")
        return {"amount": 12345}

    @task
    def large():
        note("large")
        return "y" * 50_000

    @task
    def plain():
        note("plain")
        return (1, 2, 3)

    @task
    def cut_off():
        if first_time():
            raise KeyboardInterrupt

    @flow
    def chain():
        values = [small(), large(), plain()]
        cut_off()
        return len(values)

    if __name__ == "__main__":
        chain()
"""


def write(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql).rowcount == 1
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE task_run SET result = replace(result, '12345', '12346') WHERE result LIKE '%12345%'",
        "UPDATE value SET data = 'z' || substr(data, 2) WHERE typeof(data) = 'text'",
        "UPDATE task_run SET result = CAST(x'00' || substr(result, 2) AS BLOB) WHERE typeof(result) = 'blob'",
        "UPDATE task_run SET result_codec = 'pickle' WHERE result LIKE '%12345%'",
        "UPDATE task_run SET result_hash = zeroblob(16) WHERE result LIKE '%12345%'",
        "DELETE FROM value WHERE typeof(data) = 'text'",
    ],
    ids=["inline json", "large", "inline pickle", "codec", "hash", "missing"],
)
def test_a_damaged_value_is_noticed_on_resume_and_its_task_is_not_run_again(program: Program, rows: Rows, damage: str) -> None:
    program.write(DAMAGED)
    program.run()
    write(rows.path, damage)
    before = program.effects
    answer = program.resume()
    assert answer.get("error") == "JournalCorruptError", answer
    assert program.effects == before == ["small", "large", "plain"]


def test_the_checksum_covers_a_value_and_not_the_call_it_belongs_to(program: Program, rows: Rows) -> None:
    # So two whole results that somebody swaps by hand are not noticed. FORMAT.md says so.
    program.write(
        """
        @task
        def name(number):
            return f"name-{number}"

        @task
        def cut_off():
            if first_time():
                raise KeyboardInterrupt

        @flow
        def names():
            found = [name(1), name(2)]
            cut_off()
            return found

        if __name__ == "__main__":
            names()
        """
    )
    program.run()
    connection = sqlite3.connect(rows.path)
    columns = "result, result_codec, result_hash, result_preview"
    one, two = connection.execute(f"SELECT {columns} FROM task_run ORDER BY id LIMIT 2").fetchall()
    with connection:
        for number, stored in ((1, two), (2, one)):
            connection.execute(
                "UPDATE task_run SET result = ?, result_codec = ?, result_hash = ?, result_preview = ? WHERE id = ?",
                (*stored, number),
            )
    connection.close()
    assert program.resume()["result"] == "['name-2', 'name-1']"


def test_an_unchanged_result_that_is_passed_on_answers_the_next_call(program: Program) -> None:
    program.write(
        """
        class Opaque:
            def __init__(self, number):
                self.number = number

        @task
        def make(number):
            note(f"make-{number}")
            return Opaque(number)

        @task
        def use(opaque):
            note(f"use-{opaque.number}")
            return opaque.number

        @task
        def cut_off():
            if first_time():
                raise KeyboardInterrupt

        @flow
        def chain():
            found = use(make(1)) + use(make(2))
            cut_off()
            return found

        if __name__ == "__main__":
            chain()
        """
    )
    program.run()
    assert program.resume()["result"] == "3"
    assert program.effects == ["make-1", "use-1", "make-2", "use-2"]
