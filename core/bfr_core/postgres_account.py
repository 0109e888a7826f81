"""As whom the embedded PostgreSQL runs: its programs refuse to be root."""

import os
import pwd
import signal
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .child_process import die_with_parent
from .errors import Unavailable

# Settings and time zone are ours; the caller's PG* variables would change the server's defaults.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
_NOBODY = 65534
_USER_NAMESPACE = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
_USERS_FOR_ROOT = ("bfr", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """As whom the programs run: PostgreSQL refuses to be root."""

    prefix: tuple[str, ...] = ()
    user: pwd.struct_passwd | None = None

    def popen(self, command: list[str], lock: int) -> subprocess.Popen[bytes]:
        """Return `command` running, its output piped, ended by this process's death.

        The descriptor `lock` stays open in it. Raises Unavailable when it cannot be run.
        """
        try:
            return subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=ENVIRONMENT,
                user=self.user.pw_uid if self.user else None,
                group=self.user.pw_gid if self.user else None,
                extra_groups=[] if self.user else None,
                # The lock stays taken until the last process of the server is gone, also when
                # its owner died first.
                pass_fds=(lock,),
                # A terminal's Ctrl-C is for the owner, which stops the server last of all.
                start_new_session=True,
                # SIGINT is PostgreSQL's fast shutdown.
                preexec_fn=partial(die_with_parent, signal.SIGINT, os.getpid()),
            )
        except OSError as error:
            raise Unavailable(
                f"The database program {command[0]} cannot be run: {error.strerror}"
            ) from error

    def give(self, path: Path) -> None:
        """Make `path` the account's; nothing changes when the files stay ours."""
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def give_tree(self, path: Path) -> None:
        """Make the directory `path` the account's with all it holds, when it is not yet."""
        if self.user is not None and path.stat().st_uid != self.user.pw_uid:
            for folder, folders, files in os.walk(path):
                for name in (*folders, *files):
                    self.give(Path(folder, name))
            self.give(path)  # last: its owner tells that all the rest is done


# The server believes to be nobody while its files stay ours: no new user, nothing opened to one.
_AS_NOBODY = Account(prefix=_USER_NAMESPACE)


def server_account(cluster_dir: Path) -> Account:
    """Return the account for the programs that use `cluster_dir`, which need not exist yet.

    Raises Unavailable when root finds none.
    """
    uid = os.geteuid()
    if uid != 0:
        # initdb wants a name for its user, which the user ids that clusters hand out do not have.
        return Account() if _named(uid) or not _user_namespaces_work() else _AS_NOBODY
    owner = cluster_dir.stat().st_uid if cluster_dir.exists() else 0
    if owner == 0 and _user_namespaces_work():
        return _AS_NOBODY
    for user in (owner,) if owner else _USERS_FOR_ROOT:
        if found := _named(user):
            return Account(user=found)
    raise Unavailable("The embedded database cannot run as root here: start it as another user")


def _named(user: int | str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return None


def _user_namespaces_work() -> bool:
    """Return True unless unshare(1) is missing or the kernel or the container forbids it."""
    try:
        probe = subprocess.run([*_USER_NAMESPACE, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return probe.returncode == 0
