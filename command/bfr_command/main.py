"""The `bfr` command: its subcommands and their arguments."""

import argparse
import logging
import sys
from collections.abc import Callable, Coroutine
from importlib import import_module
from pathlib import Path

import uvloop

from bfr_core import logs
from bfr_core.errors import ArchiveError
from bfr_core.rejection_notes import CODES
from bfr_core.settings import Settings

log = logging.getLogger("bfr.command")

Command = Callable[[Settings, argparse.Namespace], Coroutine[None, None, int]]


def main() -> None:
    """Run the subcommand and exit: 0 when all is well, 1 when not, 2 for wrong arguments."""
    arguments = parser().parse_args()
    try:
        settings = Settings.from_environment()
        logs.configure(settings, getattr(arguments, "role", "bfr"))
        status = uvloop.run(command_of(arguments)(settings, arguments))
    except ArchiveError as error:
        _complain(error.message)
        status = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or type(error).__name__}")
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _complain(text: str) -> None:
    if logs.as_json():
        log.critical("%s", text)
    else:
        print(f"bfr: {text}", file=sys.stderr)


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
    # How `bfr up` hands the socket on that the processes of one role share.
    command.add_argument("--listener", type=int, help=argparse.SUPPRESS)
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
    command.add_argument(
        "--dicomdir", action="store_true", help="as a file-set with a DICOMDIR, as on a disc"
    )
    command.add_argument("studies", nargs="+", metavar="STUDY_INSTANCE_UID")
    command.set_defaults(command="exporting.export_studies")

    _registering(commands)
    _keeping(commands)
    _worklist(commands)
    _commitment(commands)

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

    noun = commands.add_parser("archive", help="archives of connections, virtual ones: add, list")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("add")
    verb.add_argument("ae_title")
    owner = verb.add_mutually_exclusive_group(required=True)
    owner.add_argument("--connection")
    owner.add_argument(
        "--virtual", action="store_true", help="over all published data, for audited nodes"
    )
    verb.add_argument("--name", default="")
    verb.set_defaults(command="registering.add_archive")
    verbs.add_parser("list").set_defaults(command="registering.list_archives")

    noun = commands.add_parser("node", help="DICOM nodes: add, set, user, audited, list")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("add")
    verb.add_argument("ae_title")
    verb.add_argument("--connection", required=True)
    verb.add_argument("--host", required=True)
    verb.add_argument("--port", required=True, type=int)
    _terms(verb)
    verb.set_defaults(command="registering.add_node")
    verb = verbs.add_parser("audited", help="open a virtual archive to an audited node")
    verb.add_argument("ae_title")
    verb.add_argument("--connection", required=True)
    verb.add_argument("--virtual", required=True, metavar="AE", help="the virtual archive")
    verb.add_argument("--revoke", action="store_true", help="close it again")
    verb.set_defaults(command="registering.mark_audited")
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
    verb.add_argument(
        "--accept-rejections", action=flag, help="delete what its rejection notes name"
    )


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


def _commitment(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    noun = commands.add_parser("commitment", help="storage commitment by other archives: ask, show")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("ask", help="have a node asked whether it keeps studies for good")
    verb.add_argument("--archive", required=True, metavar="AE", help="the archive they lie in")
    verb.add_argument("--node", required=True, metavar="AE", help="the node that was sent them")
    verb.add_argument("studies", nargs="+", metavar="STUDY_INSTANCE_UID")
    verb.set_defaults(command="commitment.ask")
    verb = verbs.add_parser("show", help="tell what the node has answered")
    verb.add_argument("number", type=int, metavar="NUMBER")
    verb.set_defaults(command="commitment.show")


def _keeping(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, text in (
        ("delete", "take a study, a series or an instance out of an archive"),
        ("undelete", "undo a deletion"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("study", metavar="STUDY_INSTANCE_UID")
        command.add_argument("series", nargs="?", metavar="SERIES_INSTANCE_UID")
        command.add_argument("instance", nargs="?", metavar="SOP_INSTANCE_UID")
        command.add_argument("--archive", required=True, metavar="AE", help="AE title")
        if name == "delete":
            command.add_argument("--reason", required=True, help="why; names no person")
            command.add_argument(
                "--code", choices=sorted(CODES), help="reject what is there now, and leave a note"
            )
        command.set_defaults(command=f"deleting.{name}_objects")

    command = commands.add_parser("verify", help="hold stored objects against their digests")
    command.add_argument("study", nargs="?", metavar="STUDY_INSTANCE_UID")
    command.add_argument("--archive", metavar="AE", help="AE title; all archives when left out")
    command.set_defaults(command="verifying.verify")

    noun = commands.add_parser("case", help="what a person must look at: list, close")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("list")
    verb.add_argument("--closed", action="store_true", help="the closed ones too")
    verb.set_defaults(command="verifying.list_cases")
    verb = verbs.add_parser("close")
    verb.add_argument("case_id", type=int, metavar="NUMBER")
    verb.set_defaults(command="verifying.close_case")

    noun = commands.add_parser("blobs", help="packs and manifests: sweep, heal")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("sweep", help="delete those that nothing refers to")
    verb.set_defaults(command="rebuilding.sweep_blobs")
    verb = verbs.add_parser("heal", help="make missing and damaged copies again")
    verb.add_argument(
        "--read", action="store_true", help="read every byte of every copy, not lengths alone"
    )
    verb.add_argument(
        "--after", type=int, default=0, metavar="N", help="go on where an earlier run stopped"
    )
    verb.set_defaults(command="healing.heal_blobs")

    noun = commands.add_parser("index", help="the database: rebuild it from packs, compare two")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("rebuild", help="make the index again from the packs")
    verb.add_argument("--force", action="store_true", help="add to an index that is not empty")
    verb.add_argument("--compare-with", metavar="URL", help="another database of these packs")
    verb.set_defaults(command="rebuilding.rebuild_index")
    verb = verbs.add_parser("compare", help="compare with another database of these packs")
    verb.add_argument("url", metavar="URL")
    verb.set_defaults(command="rebuilding.compare_indexes")


if __name__ == "__main__":
    main()
