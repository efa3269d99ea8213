"""`python -m wfengine`."""

from __future__ import annotations

from wfengine.cli import main

if __name__ == "__main__":
    main()
