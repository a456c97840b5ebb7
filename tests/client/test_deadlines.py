"""Many deadlines under one timer."""

from client.deadlines import Deadlines
from client.ticket import Progress, Ticket


def test_only_unfinished_tickets_expire_and_each_once():
    deadlines = Deadlines()
    tickets = [Ticket(i, b"", deadline=100 - i) for i in range(10)]
    for ticket in [*tickets, Ticket(10, b"")]:
        deadlines.add(ticket)
    tickets[9].progress = Progress.DONE
    tickets[5].progress = Progress.DONE
    assert deadlines.expired(90) == []
    assert deadlines.next == 92
    assert deadlines.expired(96) == [tickets[8], tickets[7], tickets[6], tickets[4]]
    assert deadlines.expired(1000) == tickets[3::-1]
    assert deadlines.next is None


def test_finished_tickets_do_not_pile_up():
    deadlines = Deadlines()
    kept = Ticket(0, b"", deadline=5)
    deadlines.add(kept)
    for i in range(1, 10_000):
        ticket = Ticket(i, b"", deadline=10)
        deadlines.add(ticket)
        ticket.progress = Progress.DONE
    assert len(deadlines) < 1000
    assert deadlines.expired(10) == [kept]
