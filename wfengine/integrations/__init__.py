"""Tasks that are ready to use: `sql` databases, `shell` commands, `http` requests, `files`.

Each module is imported by itself, and needs its extra only then: `from wfengine.integrations.sql import query`. They are
ordinary tasks: journaled, with results of plain values, and with options that `.with_options(...)` changes. None of them gets
a hook inside the engine.
"""
