"""The `bfr` command: its subcommands and their arguments."""

import argparse
import logging
import sys
from collections.abc import Callable, Coroutine
from importlib import import_module
from pathlib import Path

import uvloop

from bfr_core.errors import ArchiveError
from bfr_core.settings import Settings

Command = Callable[[Settings, argparse.Namespace], Coroutine[None, None, int]]


def main() -> None:
    """Run the subcommand and exit: 0 when all is well, 1 when not, 2 for wrong arguments."""
    arguments = parser().parse_args()
    try:
        settings = Settings.from_environment()
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
            stream=sys.stderr,
        )
        for chatty in ("pydicom", "pynetdicom", "uvicorn", "yoyo"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        # Its errors come with tracebacks, which may quote rows; what they tell, jobs.py tells.
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
        status = uvloop.run(command_of(arguments)(settings, arguments))
    except ArchiveError as error:
        print(f"bfr: {error.message}", file=sys.stderr)
        status = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"bfr: {where}{error.strerror or type(error).__name__}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def command_of(arguments: argparse.Namespace) -> Command:
    """Return the subcommand's function; only its own modules are loaded, for a quick start."""
    module, _, name = arguments.command.partition(".")
    command: Command = getattr(import_module(f"bfr_command.{module}"), name)
    return command


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="bfr",
        description="An open regional archive for medical images.",
        epilog="Settings come from the environment (BFR_…): see docs/configuration.md.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", help="run every role on this machine until Ctrl-C")
    command.add_argument(
        "--demo", action="store_true", help="make a demo connection and load demo studies"
    )
    command.set_defaults(command="up.up")

    command = commands.add_parser("serve", help="run one role, as in Kubernetes")
    command.add_argument("role", choices=("dimse", "web", "worker"))
    command.set_defaults(command="serving.serve")

    command = commands.add_parser("migrate", help="bring the database to this version")
    command.set_defaults(command="database_session.migrate_database")

    command = commands.add_parser("import", help="store DICOM files and folders of them")
    command.add_argument("--archive", required=True, metavar="AE", help="AE title to store in")
    command.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    command.set_defaults(command="importing.import_paths")

    command = commands.add_parser("export", help="write stored studies as DICOM files")
    command.add_argument("--archive", metavar="AE", help="AE title; all archives when left out")
    command.add_argument("--to", required=True, type=Path, metavar="FOLDER")
    command.add_argument("studies", nargs="+", metavar="STUDY_INSTANCE_UID")
    command.set_defaults(command="exporting.export_studies")

    _registering(commands)
    _worklist(commands)

    command = commands.add_parser("doctor", help="check everything and say what to do")
    command.set_defaults(command="doctor.examine")
    return top


def _registering(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    noun = commands.add_parser("connection", help="connected systems: add, list")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("add")
    verb.add_argument("name")
    verb.add_argument("--environment", choices=("test", "production"), default="test")
    verb.add_argument("--system-hsa-id", default="")
    verb.set_defaults(command="registering.add_connection")
    verbs.add_parser("list").set_defaults(command="registering.list_connections")

    noun = commands.add_parser("archive", help="archives of connections: add, list")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("add")
    verb.add_argument("ae_title")
    verb.add_argument("--connection", required=True)
    verb.add_argument("--name", default="")
    verb.set_defaults(command="registering.add_archive")
    verbs.add_parser("list").set_defaults(command="registering.list_archives")

    noun = commands.add_parser("node", help="DICOM nodes of connections: add, set, user, list")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("add")
    verb.add_argument("ae_title")
    verb.add_argument("--connection", required=True)
    verb.add_argument("--host", required=True)
    verb.add_argument("--port", required=True, type=int)
    _terms(verb)
    verb.set_defaults(command="registering.add_node")
    verb = verbs.add_parser("set", help="change what a node has agreed on")
    verb.add_argument("ae_title")
    verb.add_argument("--connection", required=True)
    _terms(verb)
    verb.set_defaults(command="registering.set_node")
    verb = verbs.add_parser("user", help="let a node name a user; the passcode comes by stdin")
    verb.add_argument("ae_title")
    verb.add_argument("--connection", required=True)
    verb.add_argument("--username", required=True)
    verb.add_argument("--with-passcode", action="store_true", help="read it from standard input")
    verb.set_defaults(command="registering.add_node_user")
    verbs.add_parser("list").set_defaults(command="registering.list_nodes")


def _terms(verb: argparse.ArgumentParser) -> None:
    # Without a value what was agreed stays, so None is not False here.
    flag = argparse.BooleanOptionalAction
    verb.add_argument("--check-host", action=flag, help="it calls from its host only")
    verb.add_argument("--tls", action=flag, help="it calls, and is called, over TLS only")
    verb.add_argument("--certificate", metavar="SHA256|SUBJECT", help="the one that it shows")
    verb.add_argument("--require-user", action=flag, help="it names a user when it calls")
    verb.add_argument("--jwt-secret-file", type=Path, help="secret of its JSON Web Tokens (HS256)")
    verb.add_argument("--associations-max", type=int, metavar="N")
    verb.add_argument("--associations-per-minute-max", type=int, metavar="N")
    verb.add_argument("--pdu-max-bytes", type=int, metavar="N")
    verb.add_argument("--tell-availability", action=flag, help="tell it of each complete study")


def _worklist(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    noun = commands.add_parser("worklist", help="the modality worklist: add, list")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("add", help="add items from DICOM JSON files, or one by options")
    verb.add_argument("--archive", required=True, metavar="AE")
    verb.add_argument("files", nargs="*", type=Path, metavar="FILE")
    for name in ("accession", "patient-id", "patient-name", "birth-date", "sex", "station"):
        verb.add_argument(f"--{name}", default="")
    for name in ("modality", "date", "time", "description"):
        verb.add_argument(f"--{name}", default="")
    verb.set_defaults(command="worklist.add")
    verb = verbs.add_parser("list")
    verb.add_argument("--archive", required=True, metavar="AE")
    verb.set_defaults(command="worklist.show")


if __name__ == "__main__":
    main()
