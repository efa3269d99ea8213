"""What user code raised, as people are to see it: without the engine around it, and without what Python made of Ctrl-C."""

from __future__ import annotations

from types import TracebackType

_ENGINE = ("wfengine", "wfengine_journal", "wfengine_scheduler")


def as_raised(error: BaseException) -> BaseException:
    """Return what user code raised, with the engine's own frames taken out of the tracebacks of it and of its causes.

    A Ctrl-C that comes while a wait of Python's `threading` has let go of its lock arrives as that lock's complaint, which no
    user can foresee: it is the KeyboardInterrupt that it was.
    """
    behind = error.__context__
    if type(error) is RuntimeError and isinstance(behind, KeyboardInterrupt) and str(error) == "release unlocked lock":
        error = behind
    return without_engine_frames(error)


def without_engine_frames(error: BaseException) -> BaseException:
    """Take the engine's own frames out of the tracebacks of what user code raised, and of its causes; return it."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = _user_part(link.__traceback__)
        link = link.__cause__ or link.__context__
    return error


def _user_part(traceback: TracebackType | None) -> TracebackType | None:
    frames: list[TracebackType] = []
    entry = traceback
    while entry is not None:
        frames.append(entry)
        entry = entry.tb_next
    kept: TracebackType | None = None
    for frame in reversed(frames):
        if str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0] not in _ENGINE:
            frame.tb_next = kept
            kept = frame
    # An error of the engine itself keeps its frames: they are what a report needs.
    return kept if kept is not None else traceback
