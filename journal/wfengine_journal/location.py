"""Where the journal file lies, and whether a file may lie there.

The order is fixed: an explicit path, `WFENGINE_JOURNAL`, `.wfengine/journal.db` in the working directory or the nearest
folder above it, else `.wfengine/journal.db` in the working directory.
"""

from __future__ import annotations

import os
from pathlib import Path

from wfengine_journal.errors import JournalUnwritableError, NetworkFileSystemError

ENVIRONMENT_VARIABLE = "WFENGINE_JOURNAL"
FOLDER = ".wfengine"
FILE = "journal.db"

#: File system types whose locks or shared memory SQLite cannot rely on.
NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "lustre", "gfs2", "ocfs2", "beegfs"}
    | {"fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.rclone", "fuse.davfs2"}
)


def find_path(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute path of the journal to use; the file need not exist."""
    named = explicit if explicit is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        candidate = folder / FOLDER / FILE
        if candidate.exists():
            return candidate
    return here / FOLDER / FILE


def prepare_folder(path: Path) -> None:
    """Create the folder of a journal; the default folder also tells git to leave it alone."""
    try:
        if not path.parent.is_dir():
            make_private_folder(path.parent)
            if path.parent.name == FOLDER:
                (path.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise JournalUnwritableError(
            f"The folder {path.parent} for the journal cannot be created: {error.strerror}. "
            f"Name another place with --journal or {ENVIRONMENT_VARIABLE}."
        ) from error


def make_private_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each for its owner only, whatever the umask.

    Who can write one of them could put files of their own in the place of ours, and code is loaded from what lies there.
    """
    for missing in reversed([each for each in (folder, *folder.parents) if not each.is_dir()]):
        missing.mkdir(mode=0o700, exist_ok=True)  # another process may be making it too


def refuse_network_file_system(path: Path) -> None:
    """Raise NetworkFileSystemError where the mount table says so; `WFENGINE_ALLOW_NETWORK_FS=1` turns this off."""
    if os.environ.get("WFENGINE_ALLOW_NETWORK_FS") == "1":
        return
    kind = file_system_type(path)
    if kind in NETWORK_TYPES:
        raise NetworkFileSystemError(
            f"The journal {path} lies on a network file system ({kind}), where SQLite's locks do not hold and runs could "
            "be executed twice. Put it on a local disk (--journal PATH or WFENGINE_JOURNAL), or set "
            "WFENGINE_ALLOW_NETWORK_FS=1 if you know that only one machine ever opens it."
        )


def is_on_network(path: Path) -> bool:
    """Tell whether a file lies on a network file system: what other machines do with it is not seen here at once."""
    return file_system_type(path) in NETWORK_TYPES


def file_system_type(path: Path, mounts: str = "/proc/self/mounts") -> str | None:
    """Return the type of the file system that holds `path`, or None where the system does not tell."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    target = os.path.realpath(path.parent)
    best, kind = "", None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind
