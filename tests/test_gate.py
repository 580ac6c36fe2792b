"""The gate before a model server, at a clock of the test's own where time matters: places, halving, pauses, leases."""

import asyncio

import pytest

from milepost import DataError
from milepost.scale.gate import ServerGate


def run(coroutine: object) -> None:
    asyncio.run(coroutine)  # type: ignore[arg-type]


async def settled(tasks: list[asyncio.Task[str]]) -> list[bool]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def entering(gate: ServerGate, count: int) -> list[asyncio.Task[str]]:
    return [asyncio.get_running_loop().create_task(gate.enter()) for _ in range(count)]


def test_no_more_than_its_places_and_who_waits_longest_is_next() -> None:
    async def scene() -> None:
        gate = ServerGate(2)
        tasks = entering(gate, 4)
        assert await settled(tasks) == [True, True, False, False]
        await gate.leave(await tasks[0], "failed")
        assert await settled(tasks) == [True, True, True, False]

    run(scene())


def test_busy_halves_once_for_those_that_began_before_and_answers_bring_places_back() -> None:
    async def scene() -> None:
        gate = ServerGate(8)
        tickets = [await gate.enter() for _ in range(8)]
        for ticket in tickets:
            await gate.leave(ticket, "busy")
        assert gate.places == 4, "eight complaints of the same moment are one"
        await gate.leave(await gate.enter(), "busy")
        assert gate.places == 2
        for _ in range(2):
            await gate.leave(await gate.enter(), "answered")
        assert gate.places == 3, "one more after a full round"
        for _ in range(100):
            await gate.leave(await gate.enter(), "answered")
        assert gate.places == 8, "never more than at first"
        for _ in range(9):
            await gate.leave(await gate.enter(), "busy")
        assert gate.places == 1

    run(scene())


def test_nobody_enters_while_the_server_asks_to_wait() -> None:
    async def scene() -> None:
        gate = ServerGate(2)
        await gate.leave(await gate.enter(), "busy", 0.2)
        begun = asyncio.get_running_loop().time()
        await gate.enter()
        assert 0.19 <= asyncio.get_running_loop().time() - begun < 1

    run(scene())


def test_places_of_processes_that_ended_are_free_again() -> None:
    async def scene() -> None:
        gate = ServerGate(2, lease_s=0.2)
        alive, _lost = await gate.enter(), await gate.enter()
        tasks = entering(gate, 2)
        for _ in range(4):
            await asyncio.sleep(0.1)
            await gate.renew([alive, *(task.result() for task in tasks if task.done())])
        assert await settled(tasks) == [True, False], "those that are renewed are lent still"

    run(scene())


def test_one_who_stops_waiting_takes_no_place() -> None:
    async def scene() -> None:
        gate = ServerGate(1)
        first = await gate.enter()
        waiting = entering(gate, 2)
        await settled(waiting)
        waiting[0].cancel()
        await gate.leave(first, "answered")
        assert await settled(waiting) == [True, True]
        assert waiting[0].cancelled()

    run(scene())


def test_a_gate_has_places() -> None:
    with pytest.raises(DataError, match="at least 1 place"):
        ServerGate(0)
