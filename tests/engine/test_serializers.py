"""Chosen serializers: the flow gets what the serializer gives back, at the first run exactly as on replay."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import lzma
import pathlib
import pickle
import threading
import uuid
from typing import Any

import pydantic
import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine.cache_policies import INPUTS
from wfengine.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
    codec_of,
    load_serialized,
    resolve_serializer,
    serialize,
)
from wfengine_journal.errors import UsageError, ValueNotStorableError


class Colour(enum.Enum):
    RED = "red"


class Point(pydantic.BaseModel):
    x: int
    colour: Colour = Colour.RED
    at: datetime.datetime | None = None
    inner: Point | None = None


class Box(pydantic.BaseModel):
    points: list[Point]
    tags: set[str]


@dataclasses.dataclass
class Order:
    number: int
    items: tuple[str, ...]


class Shouting(Serializer):
    """Writes text in capitals; `mark` is put behind it."""

    type: str = "shouting"
    mark: str = "!"

    def dumps(self, obj: object) -> bytes:
        return (str(obj).upper() + self.mark).encode()

    def loads(self, blob: bytes) -> object:
        return blob.decode()


ALL = [
    PickleSerializer(), JSONSerializer(), CompressedPickleSerializer(), CompressedJSONSerializer(),
    CompressedSerializer(serializer="pickle"), CompressedSerializer(serializer=JSONSerializer(), compressionlib="zlib"),
    PickleSerializer(picklelib="pickle"), JSONSerializer(dumps_kwargs={"sort_keys": True}),
]  # fmt: skip
PLAIN = [None, True, 1, 1.5, "text", "", "ümläut\n", [], [1, [2]], {"a": {"b": [None]}}, 10**30]


@pytest.mark.parametrize("serializer", ALL, ids=repr)
@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_every_serializer_gives_plain_values_back(serializer: Serializer, value: object) -> None:
    encoded, given = serialize(serializer, value, "a value")
    assert given == value
    assert isinstance(encoded.data, bytes)
    assert load_serialized(encoded.codec, encoded.data, "a value") == value
    assert encoded.codec == codec_of(serializer)


@pytest.mark.parametrize("serializer", ALL, ids=repr)
def test_every_serializer_refuses_what_it_cannot_write(serializer: Serializer) -> None:
    with pytest.raises(ValueNotStorableError, match="cannot be stored"):
        serialize(serializer, threading.Lock(), "the result")


@pytest.mark.parametrize("serializer", ALL, ids=repr)
def test_a_serializer_can_be_made_again_from_its_codec(serializer: Serializer) -> None:
    encoded, _ = serialize(serializer, [1], "a value")
    assert load_serialized(codec_of(serializer), encoded.data, "a value") == [1]


@pytest.mark.parametrize("serializer", ALL, ids=repr)
def test_damaged_bytes_are_an_error_with_the_serializer_s_name(serializer: Serializer) -> None:
    with pytest.raises(ValueNotStorableError, match="cannot be read back by the serializer"):
        load_serialized(codec_of(serializer), b"\x01damage", "the result")


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("pickle", PickleSerializer), ("json", JSONSerializer), ("compressed/pickle", CompressedPickleSerializer),
        ("compressed/json", CompressedJSONSerializer), ("shouting", Shouting),
    ],
)  # fmt: skip
def test_serializers_have_names(name: str, cls: type[Serializer]) -> None:
    assert type(resolve_serializer(name, "task 'x'")) is cls
    assert type(Serializer(type=name)) is cls
    assert resolve_serializer(name, "task 'x'") == cls()


def test_pickle_writes_pickle_and_compression_compresses() -> None:
    assert pickle.loads(PickleSerializer().dumps((1, 2))) == (1, 2)
    assert lzma.decompress(CompressedJSONSerializer().dumps([1])) == b"[1]"
    assert len(CompressedPickleSerializer().dumps("x" * 10_000)) < 500


RICH = [
    datetime.datetime(2026, 11, 22, 15, 30, tzinfo=datetime.UTC), datetime.date(2026, 11, 22),
    datetime.timedelta(days=-1, seconds=3), decimal.Decimal("1.10"), uuid.UUID(int=5), {1, 2}, frozenset({"a"}), b"bytes",
    1 + 2j, Colour.RED, pathlib.PurePosixPath("/a/b"), pathlib.Path("/a"), Point(x=1), Box(points=[Point(x=1)], tags={"a"}),
    Point(x=1, inner=Point(x=2), at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)), Order(1, ("a", "b")),
    [Point(x=1), {"k": Order(2, ())}],
]  # fmt: skip


@pytest.mark.parametrize("value", RICH, ids=repr)
def test_json_gives_models_and_other_types_back_as_what_they_were(value: object) -> None:
    encoded, given = serialize(JSONSerializer(), value, "a value")
    assert given == value
    assert type(given) is type(value)
    assert load_serialized(encoded.codec, encoded.data, "a value") == value


def test_json_gives_an_exception_back_by_its_text() -> None:
    _, given = serialize(JSONSerializer(), {"error": KeyError("no")}, "a value")
    assert isinstance(given, dict)
    assert type(given["error"]) is KeyError


def test_json_leaves_dicts_alone_that_only_look_like_an_object() -> None:
    for value in ({"__class__": "Point"}, {"__class__": "a:b", "data": 1, "more": 2}, {"__exc_type__": "x", "message": "y"}):
        _, given = serialize(JSONSerializer(), value, "a value")
        assert given == value


@pytest.mark.parametrize("value", [open, int, len, b"\xff", lambda: 1, float])
def test_json_refuses_what_would_not_come_back(value: object) -> None:
    with pytest.raises(ValueNotStorableError, match="JSONSerializer refuses"):
        serialize(JSONSerializer(), value, "the result")


def test_json_refuses_a_local_class() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    with pytest.raises(ValueNotStorableError, match="not a class at the top level"):
        serialize(JSONSerializer(), Local(1), "the result")


def encode_point(value: object) -> object:
    assert isinstance(value, Point)
    return {"point": value.x}


def decode_point(found: dict[str, Any]) -> object:
    return Point(x=found["point"]) if "point" in found else found


def test_json_takes_functions_of_the_user_for_its_objects() -> None:
    module = __name__
    serializer = JSONSerializer(object_encoder=f"{module}.encode_point", object_decoder=f"{module}.decode_point")
    encoded, given = serialize(serializer, [Point(x=3)], "a value")
    assert given == [Point(x=3)]
    assert encoded.data == b'[{"point": 3}]'
    with pytest.raises(UsageError, match="object_encoder"):
        JSONSerializer(dumps_kwargs={"default": str})
    with pytest.raises(UsageError, match="object_decoder"):
        JSONSerializer(loads_kwargs={"object_hook": str})


# ---------------------------------------------------------------------------------------------------- the user's own


def test_the_settings_of_a_serializer_stand_in_its_codec() -> None:
    assert codec_of(Shouting()) == "serializer:shouting"
    assert codec_of(Shouting(mark="?")) == 'serializer:shouting {"mark":"?"}'
    encoded, given = serialize(Shouting(mark="?"), "hi", "a value")
    assert given == "HI?"
    assert load_serialized(encoded.codec, encoded.data, "a value") == "HI?"


def test_fields_written_for_pydantic_are_taken_for_settings() -> None:
    class Padded(Serializer):
        type: str = pydantic.Field(default="padded", frozen=True)
        width: int = pydantic.Field(default=3)

        def dumps(self, obj: object) -> bytes:
            return str(obj).rjust(self.width).encode()

        def loads(self, blob: bytes) -> object:
            return blob.decode()

    assert serialize(resolve_serializer("padded", ""), "x", "a value")[1] == "  x"
    assert serialize(Padded(width=5), "x", "a value")[1] == "    x"


class Nameless(Serializer):
    pass


class Holding(Serializer):
    type: str = "holding"
    lock: object = None


class Wanting(Serializer):
    type: str = "wanting"

    def __init__(self, needed: str) -> None:
        super().__init__()
        self._needed = needed


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: resolve_serializer("msgpack", "task 'x'"), "no serializer of type 'msgpack'"),
        (lambda: resolve_serializer(pickle, "task 'x'"), "a serializer is one of 'pickle', 'json'"),
        (lambda: resolve_serializer(Nameless(), "task 'x'"), "needs a `type` of its own"),
        (lambda: resolve_serializer(Holding(lock=threading.Lock()), "task 'x'"), "not plain JSON"),
        (lambda: resolve_serializer(Wanting("a"), "task 'x'"), "could not be made again"),
        (lambda: JSONSerializer(nonsense=1), "has no setting 'nonsense'"),
        (lambda: JSONSerializer(type="pickle"), "has no setting 'type'"),
        (lambda: CompressedSerializer(), "needs the serializer"),
    ],
)
def test_what_is_no_serializer_is_refused_at_decoration(make: object, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()  # type: ignore[operator]


# ---------------------------------------------------------------------------------------------------- in a flow


@pytest.mark.parametrize("on", ["task", "flow"])
def test_a_tuple_through_json_is_a_list_at_the_first_run_and_on_replay(program: Program, on: str) -> None:
    options = {"task": ('result_serializer="json"', ""), "flow": ("", 'result_serializer="json"')}[on]
    program.write(f"""
        @task({options[0]})
        def pair():
            note("pair")
            return (1, 2)

        @flow({options[1]})
        def main():
            found = pair()
            note(type(found).__name__)
            if first_time():
                kill()
            return (found, type(found).__name__)

        print(main())
    """)
    program.run_and_be_killed()
    answer = program.resume(recovery=True)
    assert program.effects == ["pair", "list", "list"]
    assert answer["type"] == ("list" if on == "flow" else "tuple")
    assert str(answer["result"]).strip("()[]") == "[1, 2], 'list'".strip("()[]")


def test_models_of_a_script_come_back_as_models_after_a_kill(program: Program, rows: Rows) -> None:
    program.write("""
        import pydantic

        class Point(pydantic.BaseModel):
            x: int

        @task(result_serializer="json")
        def make(x):
            note(f"make-{x}")
            return [Point(x=x)]

        @flow(result_serializer="compressed/json")
        def main():
            points = make(3)
            assert type(points[0]) is Point
            if first_time():
                kill()
            return points[0].x

        if __name__ == "__main__":
            main()
    """)
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "3"
    assert program.effects == ["make-3"]
    assert rows("SELECT result_codec, typeof(result) FROM task_run") == [("serializer:json", "blob")]
    assert rows("SELECT result_codec FROM flow_run") == [("serializer:compressed/json",)]
    assert rows("SELECT result FROM tasks") == [("[Point(x=3)]",)]  # the preview, made when it was written


def test_a_task_s_serializer_goes_before_its_flow_s_and_subflows_inherit_it(rows: Rows) -> None:
    @task
    def plain() -> tuple[int, ...]:
        return (1,)

    @task(result_serializer="pickle")
    def pickled() -> tuple[int, ...]:
        return (2,)

    @flow
    def child() -> list[object]:
        return [plain(), pickled()]

    @flow(result_serializer=JSONSerializer())
    def parent() -> list[object]:
        return [plain(), pickled(), *child()]

    assert parent() == [[1], [2], [1], [2]]
    codecs = rows("SELECT k.name, t.result_codec FROM task_run t JOIN task k ON k.id = t.task_id ORDER BY t.id")
    assert codecs == [
        ("plain", "serializer:json"), ("pickled", "serializer:pickle"), ("child", "json"), ("plain", "serializer:json"),
        ("pickled", "serializer:pickle"),
    ]  # fmt: skip
    assert rows("SELECT DISTINCT result_codec FROM flow_run") == [("serializer:json",)]


def test_what_a_serializer_refuses_fails_the_task_at_its_end(rows: Rows) -> None:
    @task(result_serializer="json", retries=3)
    def make() -> object:
        return {"lock": threading.Lock()}

    @flow
    def main() -> None:
        make()

    with pytest.raises(ValueNotStorableError, match="the result of task run 1 of 'make'"):
        main()
    assert rows("SELECT state, attempts FROM tasks") == [("FAILED", 1)]


def test_a_serializer_whose_loads_fails_is_found_out_when_the_task_ends(rows: Rows) -> None:
    class Lossy(Serializer):
        type = "lossy"

        def dumps(self, obj: object) -> bytes:
            return b""

        def loads(self, blob: bytes) -> object:
            raise EOFError("nothing there")

    @task(result_serializer=Lossy())
    def make() -> int:
        return 1

    @flow
    def main() -> None:
        make()

    with pytest.raises(ValueNotStorableError, match="EOFError: nothing there"):
        main()


def test_a_cached_value_is_read_by_the_serializer_that_wrote_it(rows: Rows) -> None:
    @task(cache_policy=INPUTS, result_serializer=Shouting(mark="?"))
    def shout(text: str) -> str:
        return text

    @flow
    def main() -> list[str]:
        return [shout("hi"), shout("hi"), shout.with_options(result_serializer="json")("hi"), shout.submit("hi").result()]

    assert main() == ["HI?"] * 4
    assert rows("SELECT outcome, count(*) FROM cache_uses GROUP BY 1 ORDER BY 1") == [("hit", 3), ("miss", 1)]


def test_an_entry_whose_serializer_is_gone_is_not_served(rows: Rows, journal) -> None:  # type: ignore[no-untyped-def]
    ran: list[int] = []

    @task(cache_policy=INPUTS, result_serializer="shouting")
    def shout(text: str) -> str:
        ran.append(1)
        return text

    @flow
    def main() -> str:
        return shout("hi")

    main()
    gone = "UPDATE cache SET result_codec = 'serializer:gone', result_hash = ?"
    from wfengine_journal.codec import value_hash

    digest = value_hash("serializer:gone", b"HI!")
    journal.read(lambda connection: connection.execute(gone, (digest,)).fetchall())
    assert main() == "HI!"
    assert len(ran) == 2
    assert "no serializer of type 'gone'" in str(rows("SELECT message FROM cache_uses WHERE outcome = 'damaged'"))


def test_a_returned_object_is_given_its_serialized_form_in_an_async_flow_too() -> None:
    import asyncio

    @task(result_serializer="json")
    async def pair() -> tuple[int, int]:
        return (1, 2)

    @flow(result_serializer="json")
    async def main() -> tuple[object, object]:
        return await pair(), await pair.submit()

    assert asyncio.run(main()) == [[1, 2], [1, 2]]


def test_json_serializer_does_not_import_pydantic_for_plain_values(program: Program) -> None:
    program.write("""
        @task(result_serializer="json")
        def pair():
            return [1, 2]

        @flow
        def main():
            return pair()

        main()
        print("pydantic" in sys.modules)
    """)
    assert program.run().out == "False\n"
