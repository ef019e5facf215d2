"""Let the tuner choose threads on a simulated machine."""

import pytest

from faceswap.training.threads import ThreadTuner


@pytest.fixture(autouse=True)
def free_choice(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


class Machine:
    """Takes steps whose duration depends on the threads and on other programs.

    With busy neighbours, one thread waits for its turn, and the others wait for it.
    """

    def __init__(self, cores, busy=0):
        self.cores, self.busy, self.seconds = cores, busy, 0.0
        self.tuner = ThreadTuner(set_threads=lambda count: None, threads=cores)

    def step(self):
        threads = self.tuner.threads
        crowded = threads + self.busy > self.cores
        seconds = 0.15 * (0.25 + 0.75 * self.cores / threads) * (4 if crowded else 1)
        self.seconds += seconds
        self.tuner.stepped(seconds)

    def run(self, seconds):
        """Run for some time; return the mean rate of steps."""
        steps, end = 0, self.seconds + seconds
        while self.seconds < end:
            self.step()
            steps += 1
        return steps / seconds


def test_a_quiet_machine_uses_all_cores_almost_always():
    machine = Machine(2)

    rate = machine.run(120)

    assert machine.tuner.threads == 2
    assert rate > 0.95 / 0.15


@pytest.mark.parametrize(("cores", "busy"), [(2, 1), (8, 2), (16, 1)])
def test_busy_neighbours_get_their_cores(cores, busy):
    machine = Machine(cores, busy)

    machine.run(60)

    assert machine.tuner.threads + busy <= cores


def test_a_neighbour_that_comes_and_goes_is_noticed():
    machine = Machine(2)
    machine.run(60)

    machine.busy = 1
    machine.run(10)
    assert machine.tuner.threads == 1

    machine.busy = 0
    machine.run(70)
    assert machine.tuner.threads == 2


def test_steps_that_become_slower_for_another_reason_do_not_cost_threads():
    machine = Machine(2)
    machine.run(30)

    machine.step = lambda: machine.tuner.stepped(0.5 / machine.tuner.threads)
    for _ in range(300):
        machine.step()

    assert machine.tuner.threads == 2


def test_the_environment_decides_if_it_sets_the_number(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    machine = Machine(2, busy=1)

    machine.run(60)

    assert machine.tuner.threads == 2


def test_close_restores_the_number_of_threads():
    counts = []
    tuner = ThreadTuner(set_threads=counts.append, threads=4)
    for _ in range(40):
        tuner.stepped(0.1 * tuner.threads)
    assert tuner.threads < 4

    tuner.close()

    assert counts[-1] == 4
