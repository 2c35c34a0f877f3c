"""A process that is stopped while it holds the lease's row: another one takes over all the same."""

import os
import signal
import subprocess
import sys
import time

import pytest

import storage
from storage import Store
from tests.storage.conftest import make_world

HOLD_AND_STOP = """
import os, signal, sys
import storage
from storage.topics import leases
from tests.bandit.inspect import database_of

url, model_id, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def stop_inside(connection):
    leases.hold(connection, model_id, number)
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    connection.exec_driver_sql("UPDATE leases SET owner = 'stale'")

with storage.Store.open(url) as store:
    try:
        database_of(store).write(stop_inside)
    except storage.StorageError as error:
        print(type(error).__name__)
"""


@pytest.mark.kills
@pytest.mark.postgres
def test_a_stopped_process_lets_go_of_the_lease(postgres_url: str) -> None:
    with storage.Store.open(postgres_url) as store:
        _stop_and_take_over(store, make_world(store, attribution_window_s=0.0).model_id, postgres_url)


def _stop_and_take_over(store: Store, model_id: int, url: str) -> None:
    leases = store.leases
    number = leases.acquire(model_id, "stopped", ttl_s=0.5)
    command = [sys.executable, "-c", HOLD_AND_STOP, url, str(model_id), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            os.waitpid(process.pid, os.WUNTRACED)
            started = time.monotonic()
            assert leases.acquire(model_id, "successor", ttl_s=60.0) == 2
            assert 2.0 < time.monotonic() - started < 10.0
            process.send_signal(signal.SIGCONT)
            output, _ = process.communicate(timeout=30)
            assert output == "LeaseLostError\n"  # the server ended its session, and it tried again
            assert leases.owner(model_id) == "successor"
        finally:
            process.kill()
