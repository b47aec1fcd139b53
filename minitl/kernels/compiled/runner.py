"""The kernels around all others: one runs a table of calls, one waits for such work, one gives it out.

Whoever has work for a helper writes the address of its arguments, a *job*, into the helper's mailbox. The helper
takes it by adding one (addresses are even), and when it is done says that it is waiting again. Between two jobs it
watches the mailbox for a while: to wake a thread that sleeps takes longer than many a table.
"""

from __future__ import annotations

from functools import cache

from minitl.kernels.compile import Kernel, kernel, sources
from minitl.kernels.compiled.raw import arguments, call, count_up, load64, pause, store64, swap, watch

ASLEEP, WAITING = 0, 1  # what is in a mailbox that has no job
LOOKS = 1000  # at what other threads have done, before they are let run: there may be more threads than processors


@cache
def runner(width: int, head: int) -> Kernel:
    """Runs tasks until none is left. A row of the table is the kernel's address and `width` - 1 arguments.

    Its own arguments: addresses of the rows, of the number of the array that each argument
    points into, of each task's first row and how many tasks must be done before it; how many tasks; how many
    arrays and where they are told, room for a call's arguments; where all threads count the tasks that are done, and
    mark those that are taken; the thread's number and how many there are; and what lets another thread run.
    The first two arrays are told by their addresses, the others as Python's objects, `head` bytes of which
    stand before NumPy's address of the numbers.

    Of the tasks between two barriers a thread first takes its own share: a sample then stays with one thread, in
    whose caches its maps are. When those are taken it helps with the others.
    """
    version = sources()

    @kernel
    def run(p: int) -> None:
        rows, arrays, starts, count, given, bases, room, done, taken, number, threads, let_run = arguments(
            p, 12, version
        )
        for i in range(2, given):
            store64(bases + 8 * i, load64(load64(bases + 8 * i) + head))
        first = 0
        while first < count:
            stop = first + 1
            while stop < count and load64(starts + 16 * stop + 8) <= first:
                stop += 1
            looks = 0
            while watch(done) < first:
                looks += 1
                if looks % LOOKS == 0:
                    call(let_run, 0)
                pause()
            own = (stop - first) * number // threads
            for i in range(stop - first):
                task = first + (own + i) % (stop - first)
                if swap(taken + 8 * task, 0, 1):
                    for row in range(load64(starts + 16 * task), load64(starts + 16 * task + 16)):
                        for j in range(1, width):
                            base = load64(bases + 8 * load64(arrays + 8 * (row * width + j)))
                            store64(room + 8 * (j - 1), load64(rows + 8 * (row * width + j)) + base)
                        call(load64(rows + 8 * row * width), room)
                    count_up(done)
            first = stop

    return run


@cache
def helper() -> Kernel:
    """Does the jobs that come into its mailbox with `function`; returns, asleep, when none comes for `patience` looks.

    Arguments: addresses of the mailbox and of the function, the patience.
    """
    version = sources()

    @kernel
    def serve(p: int) -> None:
        mailbox, function, patience = arguments(p, 3, version)
        while True:
            for _ in range(patience):
                if watch(mailbox) > WAITING:
                    break
                pause()
            job = watch(mailbox)
            if job <= WAITING:
                if swap(mailbox, WAITING, ASLEEP):
                    break
            elif swap(mailbox, job, job + 1):
                call(function, job)
                swap(mailbox, job + 1, WAITING)

    return serve


@cache
def post() -> Kernel:
    """Puts jobs into the mailboxes of helpers that have none, and says what was in each before.

    Arguments: how many, the addresses of the mailboxes and of a row for each: its job, then what was there.
    """
    version = sources()

    @kernel
    def put(p: int) -> None:
        count, mailboxes, rows = arguments(p, 3, version)
        for i in range(count):
            mailbox, row = mailboxes + 64 * i, rows + 16 * i
            before = watch(mailbox)
            if before > WAITING or not swap(mailbox, before, load64(row)):
                before = load64(row)  # busy, with somebody else's job
            store64(row + 8, before)

    return put


@cache
def leader() -> Kernel:
    """Does its own job, takes back those that no helper has begun, and waits for `patience` looks for the others.

    Arguments: the addresses of the function and of its own job, how many helpers, the addresses of mailboxes
    and rows (see `post`), the patience, and where to write how many helpers are still at work.
    """
    version = sources()

    @kernel
    def lead(p: int) -> None:
        function, own, count, mailboxes, rows, patience, late = arguments(p, 7, version)
        if own:
            call(function, own)
        left = 0
        for i in range(count):
            mailbox, job = mailboxes + 64 * i, load64(rows + 16 * i)
            if load64(rows + 16 * i + 8) != job and not swap(mailbox, job, WAITING):
                for _ in range(patience):
                    if watch(mailbox) != job + 1:
                        break
                    pause()
                if watch(mailbox) == job + 1:
                    left += 1
        store64(late, left)

    return lead
