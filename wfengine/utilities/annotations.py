"""The marks on arguments, under the name Prefect gives this module. They are defined in `wfengine.annotations`."""

from __future__ import annotations

from wfengine.annotations import BaseAnnotation, Quote, allow_failure, freeze, opaque, quote, unmapped

__all__ = ["BaseAnnotation", "Quote", "allow_failure", "freeze", "opaque", "quote", "unmapped"]
