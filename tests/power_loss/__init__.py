"""What a power cut may leave of a journal: a run is recorded, disks are rebuilt from the record, and judged.

`recording.py` compiles `recorder.c` and runs an unmodified program under it: each creation, write, truncation, sync, rename
and removal in one folder, in one order with the lines of the effect file, which say what the flow was told.
`disks.py` holds the model of a disk and rebuilds what could be found after a cut. `judging.py` opens such disks and goes on
with their runs. `workloads.py` holds what is recorded: plain SQLite, which calibrates the harness, and flows.

    python -m tests.power_loss.program --images 20000 --seed 7

is the long form. A violation keeps the recordings and prints the command that repeats its image.
Needs Linux and gcc.
"""
