"""Exceptions on their way from a worker: with class, cause, context, notes, and tracebacks that show the worker's lines."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, TracebackType
from typing import NamedTuple

from wfengine_journal.codec import EncodedError, decode_error, encode_error

#: Exceptions of one chain that are sent, and frames of one traceback.
MAX_CHAIN = 50
MAX_FRAMES = 200


class Frame(NamedTuple):
    """One line of a traceback."""

    file: str
    line: int
    function: str
    module: str


class Link(NamedTuple):
    """One exception of a chain: itself, or text where it cannot be pickled; cause and context are numbers."""

    error: BaseException | EncodedError
    frames: tuple[Frame, ...]
    cause: int | None
    context: int | None
    suppress: bool


class Failure(NamedTuple):
    """An exception and those it hangs together with; the first is the one that was raised."""

    links: tuple[Link, ...]


def failure_of(error: BaseException, dump: Callable[[object], bytes]) -> Failure:
    """Return what is sent of an exception. Never raises."""
    chain = [error]
    for member in chain:  # grows while it is walked
        for other in (member.__cause__, member.__context__):
            if other is not None and len(chain) < MAX_CHAIN and not any(other is known for known in chain):
                chain.append(other)

    def number(other: BaseException | None) -> int | None:
        return next((place for place, known in enumerate(chain) if known is other), None)

    return Failure(
        tuple(
            Link(
                _sendable(member, dump), _frames_of(member.__traceback__), number(member.__cause__),
                number(member.__context__), member.__suppress_context__,
            )
            for member in chain
        )
    )  # fmt: skip


def error_of(failure: Failure) -> BaseException:
    """Return the exception that was sent, put together again."""
    made = [_put_together(link.error) for link in failure.links]
    for error, link in zip(made, failure.links, strict=True):
        BaseException.__setattr__(error, "__cause__", None if link.cause is None else made[link.cause])
        BaseException.__setattr__(error, "__context__", None if link.context is None else made[link.context])
        BaseException.__setattr__(error, "__suppress_context__", link.suppress)
        BaseException.__setattr__(error, "__traceback__", _traceback_of(link.frames))
    return made[0]


def _sendable(error: BaseException, dump: Callable[[object], bytes]) -> BaseException | EncodedError:
    try:
        dump(error)
    except Exception:
        return encode_error(error)
    return error


def travels_in_parts(error: BaseException) -> bool:
    """Tell whether an exception cannot be made again by calling its class with its args, as unpickling does.

    That is so where an __init__ takes two values and passes on a text.
    """
    kind = type(error)
    if kind.__reduce__ is not BaseException.__reduce__ or kind.__reduce_ex__ is not BaseException.__reduce_ex__:
        return False
    try:
        made = kind(*error.args)
        return made.args != error.args or str(made) != str(error)
    except Exception:  # whatever a class does when it is made
        return True


def bare_error(kind: type[BaseException], args: tuple[object, ...]) -> BaseException:
    """Return an exception of a class, whose attributes are still to be set, without calling its __init__."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


def _put_together(sent: BaseException | EncodedError) -> BaseException:
    return decode_error(sent) if isinstance(sent, EncodedError) else sent


def _frames_of(traceback: TracebackType | None) -> tuple[Frame, ...]:
    frames: list[Frame] = []
    while traceback is not None:
        code, names = traceback.tb_frame.f_code, traceback.tb_frame.f_globals
        frames.append(Frame(code.co_filename, traceback.tb_lineno, code.co_name, str(names.get("__name__", ""))))
        traceback = traceback.tb_next
    return tuple(frames[-MAX_FRAMES:])


def _traceback_of(frames: tuple[Frame, ...]) -> TracebackType | None:
    """Return a traceback that prints these lines. Its frames belong to stand-ins: nothing but their place is true of them."""
    made: TracebackType | None = None
    for frame in reversed(frames):
        stand_in = _stand_in(frame)
        if stand_in is not None:
            made = TracebackType(made, stand_in.tb_frame, stand_in.tb_lasti, frame.line)
    return made


def _stand_in(frame: Frame) -> TracebackType | None:
    code: CodeType = compile("raise LookupError", frame.file, "exec")
    code = code.replace(co_name=frame.function, co_firstlineno=max(1, frame.line))
    try:
        exec(code, {"__name__": frame.module, "__file__": frame.file})
    except LookupError as error:
        return error.__traceback__.tb_next if error.__traceback__ is not None else None
    return None
