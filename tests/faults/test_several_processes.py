"""Several dimse processes on one port: one of them is killed and the others go on."""

import gc
import time
from collections.abc import Iterator

import psutil
import pytest
from tests.faults.test_killed_processes import AE_TITLE, PATIENCE_S, CStoreSender, retrieved
from tests.system import System, running_system

SENDERS_MAX = 12


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("several")
    with running_system(directory, BFR_DIMSE_PROCESSES="2") as system:
        system.add_archive(AE_TITLE, ["SENDER"])
        yield system
    gc.collect()


def dimse_processes(system: System) -> list[psutil.Process]:
    assert system.process is not None
    children = psutil.Process(system.process.pid).children()
    return [one for one in children if one.cmdline()[-2:] == ["serve", "dimse"]]


def local_ports(process: psutil.Process, port: int) -> set[int]:
    """The peers' ports of the associations that the process serves."""
    return {
        one.raddr.port
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
    }


def port_of(sender: CStoreSender) -> int:
    """The sender's own port of its association; 0 between two of them."""
    association = sender.association
    stream = association.dul.socket if association is not None else None
    if stream is None or stream.socket is None:
        return 0
    return int(stream.socket.getsockname()[1])


def both_serve(system: System) -> list[psutil.Process]:
    deadline = time.monotonic() + PATIENCE_S
    while len(found := dimse_processes(system)) < 2:
        assert time.monotonic() < deadline, system.log[-3000:]
        time.sleep(0.1)
    return found


# pynetdicom, which sends here, leaves the socket of a killed peer to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_process_is_killed_and_the_others_go_on(system: System) -> None:
    victim, other = both_serve(system)
    senders: list[CStoreSender] = []
    # The kernel shares connections out as it likes: until each process has some.
    while not all(local_ports(one, system.dimse_port) for one in (victim, other)):
        assert len(senders) < SENDERS_MAX
        senders.append(CStoreSender(system))
        senders[-1].start()
        senders[-1].wait_for(2)
    served_by_other = local_ports(other, system.dimse_port)
    untouched = [one for one in senders if port_of(one) in served_by_other]
    assert untouched
    kept = [one.association for one in untouched]
    victim.kill()
    for sender in senders:
        sender.wait_for(5)
    assert [one.association for one in untouched] == kept
    both_serve(system)
    for sender in senders:
        sender.ending.set()
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive()
        found = retrieved(system, sender)
        assert not sender.acknowledged.keys() - found.keys()
        assert all(found[uid] == data for uid, data in sender.acknowledged.items())
