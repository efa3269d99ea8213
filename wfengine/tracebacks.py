"""Tracebacks that show the user's code and not the engine around it."""

from __future__ import annotations

from types import TracebackType

_ENGINE = ("wfengine", "wfengine_journal", "wfengine_scheduler")


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
