"""Fields and values of the form in which a run is started, and the part of Markdown that is drawn."""

from __future__ import annotations

from wfengine.page.forms import fields_of, parsed_schema, read
from wfengine.page.markdown import LINES, blocks, pieces

SCHEMA = {
    "properties": {
        "count": {"type": "integer", "default": 2},
        "share": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "colour": {"$ref": "#/definitions/Colour", "default": "red"},
        "is_loud": {"type": "boolean", "default": False},
        "name": {"type": "string"},
        "box": {"anyOf": [{"$ref": "#/definitions/Box"}, {"type": "null"}], "default": None},
        "any": {},
        "items": {"type": "array", "items": {"type": "integer"}, "default": []},
    },
    "required": ["name"],
    "definitions": {
        "Colour": {"enum": ["red", "blue"], "type": "string"},
        "Box": {"type": "object", "properties": {"width": {"type": "integer"}}, "required": ["width"]},
    },
    "x-validated": True,
}


def test_each_type_has_a_field_of_its_kind() -> None:
    fields = {field.name: field for field in fields_of(SCHEMA, {"count": 7}, {}, {})}
    assert {name: field.kind for name, field in fields.items()} == {
        "count": "number", "share": "number", "colour": "choice", "is_loud": "boolean", "name": "text", "box": "json",
        "any": "json", "items": "json",
    }  # fmt: skip
    assert fields["count"].text == "7", "what the deployment says goes before the flow's default"
    assert fields["colour"].choices == (('"red"', "red"), ('"blue"', "blue"))
    assert [field.name for field in fields.values() if field.is_required] == ["name"]


def test_what_is_left_as_it_stood_is_not_sent() -> None:
    form = read(SCHEMA, {}, {"count": "2", "colour": '"red"', "share": "", "name": "x", "items": "[]"})
    assert (form.values, form.problems) == ({"name": "x"}, {})


def test_what_is_typed_is_read_by_the_type() -> None:
    typed = {
        "count": "3", "share": "0.5", "colour": '"blue"', "is_loud": "true", "name": "5", "box": '{"width": 1}', "any": "5",
        "items": "[1, 2]",
    }  # fmt: skip
    assert read(SCHEMA, {}, typed).values == {
        "count": 3, "share": 0.5, "colour": "blue", "is_loud": True, "name": "5", "box": {"width": 1}, "any": 5, "items": [1, 2]
    }  # fmt: skip
    assert read(SCHEMA, {}, {"name": "x", "any": "a text"}).values["any"] == "a text"
    assert read(SCHEMA, {}, {"name": "x", "count": "{{ variables.count }}"}).values["count"] == "{{ variables.count }}"


def test_what_cannot_be_taken_is_said_of_its_field() -> None:
    for name, text, said in (
        ("count", "many", "a whole number"), ("count", "1.5", "a whole number"), ("count", "NaN", "a whole number"),
        ("count", "", "is empty"), ("share", "x", "a number"), ("colour", '"green"', "can be chosen"),
        ("is_loud", "2", "true or false"),
        ("box", "{", "is no JSON"), ("box", "{}", "needs 'width'"), ("box", '{"width": "x"}', "width is a whole number"),
        ("items", '[1, "x"]', "item 2"), ("items", "[" * 100_000, "is no JSON"),
    ):  # fmt: skip
        problems = read(SCHEMA, {}, {"name": "x", name: text}).problems
        assert said in problems.get(name, ""), (name, text, problems)
    assert read(SCHEMA, {}, {}).problems == {"name": "is missing"}


def test_a_schema_that_is_none_has_no_fields() -> None:
    for text in (None, "", "[]", "{", '{"properties": 1}', '{"properties": {"a": 1, "b": {"$ref": "#/definitions/b"}}}'):
        schema = parsed_schema(text)
        assert read(schema, {}, {"a": "1"}).problems == {}


def test_markdown_is_cut_into_blocks_and_nothing_of_it_is_markup() -> None:
    text = "# A\n\ntext **b** `c` *d*\nmore\n\n- x\n- y\n\n1. z\n\n"
    text += "> q\n\n```py\n<b>\n```\n\n---\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    kinds = [block.kind for block in blocks(text)]
    assert kinds == ["heading", "paragraph", "list", "numbers", "quote", "code", "rule", "table"]
    assert [(piece.kind, piece.text) for piece in pieces("a **b** `c` <i>")] == [
        ("text", "a "), ("strong", "b"), ("text", " "), ("code", "c"), ("text", " <i>")
    ]  # fmt: skip
    assert [piece.kind for piece in pieces("[x](javascript:alert(1)) [y](https://example.org)")] == ["text", "link"]


def test_markdown_of_any_form_is_read_in_bounded_time_and_never_refused() -> None:
    for odd in ("[", "*", "**", "`", "[a](https://", "|", "- ", "> ", "#", "```\n", "\x00"):
        assert isinstance(blocks(odd * (60_000 // len(odd))), list)
    assert len(blocks("- x\n\n" * LINES)) <= LINES
