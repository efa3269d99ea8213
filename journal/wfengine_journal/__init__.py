"""The journal: one SQLite file with everything that flows did, and the only code that reads or writes it.

It knows nothing of how a flow is executed, and imports nothing of ours. FORMAT.md, beside this package, is its reference.
"""
