"""The exception names that code written for Prefect catches: each is raised where that code expects it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from wfengine import exceptions, flow, task
from wfengine.cli.execution import load_flow
from wfengine.exceptions import (
    EntrypointError,
    MissingContextError,
    MissingFlowError,
    ParameterBindError,
    ParameterError,
    ParameterTypeError,
    PausedRun,
    PrefectException,
    ReservedArgumentError,
    ScriptError,
    SignatureMismatchError,
    UnspecifiedFlowError,
    UsageError,
    WfengineError,
)
from wfengine.loading import load_target
from wfengine.parameters import Parameters

PREFECT_NAMES = (
    "Abort", "CancelledRun", "CrashedRun", "FailedRun", "MappingLengthMismatch", "MappingMissingIterable",
    "MissingContextError", "MissingFlowError", "MissingResult", "ObjectNotFound", "ParameterBindError",
    "ParameterTypeError", "Pause", "PausedRun", "PrefectException", "PrefectSignal", "ReservedArgumentError", "ScriptError",
    "SignatureMismatchError", "UnfinishedRun", "UnspecifiedFlowError",
)  # fmt: skip


@flow
def counting(number: int) -> int:
    return number


@pytest.mark.parametrize("name", PREFECT_NAMES)
def test_prefects_name_is_an_exception_that_says_what_it_is_for(name: str) -> None:
    error = getattr(exceptions, name)
    assert issubclass(error, BaseException)
    assert error.__doc__


def test_every_error_is_a_prefect_exception() -> None:
    assert PrefectException is WfengineError


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_call_with_missing_or_surplus_arguments_raises_a_binding_error(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ParameterBindError) as caught:
        counting(*arguments)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ParameterError)


def test_value_that_does_not_fit_its_hint_raises_a_type_error() -> None:
    with pytest.raises(ParameterTypeError, match="number"):
        counting("many")  # type: ignore[arg-type]  # what is tested


def test_unknown_parameter_of_a_command_line_raises_a_mismatch_with_the_signature() -> None:
    with pytest.raises(SignatureMismatchError, match="did you mean 'number'"):
        Parameters(counting.fn, owner="flow 'counting'").from_text({"nmuber": "1"})


@pytest.mark.parametrize("decorator", [flow, task])
def test_parameter_with_a_name_of_the_call_is_refused(decorator: type) -> None:
    def waiting(wait_for: int) -> int:
        return wait_for

    with pytest.raises(ReservedArgumentError) as caught:
        decorator(waiting)
    assert isinstance(caught.value, TypeError)


def test_missing_context_is_a_runtime_error_as_in_prefect() -> None:
    assert issubclass(MissingContextError, RuntimeError)


@pytest.mark.parametrize(
    ("text", "target", "error"),
    [
        ("x = 1\n", "", MissingFlowError),
        ("from wfengine import flow\n@flow\ndef a(): ...\n", ":b", MissingFlowError),
        ("from wfengine import flow\n@flow\ndef a(): ...\n@flow\ndef b(): ...\n", "", UnspecifiedFlowError),
        ("1 / 0\n", "", ScriptError),
    ],
)
def test_file_without_the_flow_that_was_asked_for_says_which_way(
    tmp_path: Path, text: str, target: str, error: type[EntrypointError]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(text, encoding="utf-8")
    with pytest.raises(error) as caught:
        load_flow(f"{script}{target}")
    assert type(caught.value) is error


def test_script_error_has_the_exception_of_the_script(tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(ScriptError) as caught:
        load_target(str(script))
    assert isinstance(caught.value.user_exc, ZeroDivisionError)


def test_error_of_a_paused_run_is_pickled_without_the_state() -> None:
    back = pickle.loads(pickle.dumps(PausedRun("waits", flow_run_id=3, state=object())))
    assert (str(back), back.flow_run_id, back.state) == ("waits", 3, None)


def test_codes_are_unique() -> None:
    found: dict[str, str] = {}
    for name, error in vars(exceptions).items():
        if isinstance(error, type) and issubclass(error, WfengineError) and error.__name__ == name:
            assert error.code not in found, (name, found[error.code])
            found[error.code] = name
    assert issubclass(UsageError, WfengineError)
