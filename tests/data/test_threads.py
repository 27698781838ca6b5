"""At most the limit runs at once, and nothing waits forever."""

import threading
import time

from jaxgear.data.images.threads import Turns


def test_what_runs_at_once_weighs_no_more_than_the_limit():
    turns, lock = Turns(10), threading.Lock()
    running, most, done = [], [0], []

    def work(weight):
        with turns.turn(weight):
            with lock:
                running.append(weight)
                most[0] = max(most[0], sum(running) if len(running) > 1 else 0)
            time.sleep(0.002)
            with lock:
                running.remove(weight)
        done.append(weight)

    threads = [threading.Thread(target=work, args=(w,)) for w in [3, 7, 10, 1, 25, 4, 6, 2] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 40, "also what weighs more than the limit"
    assert 3 < most[0] <= 10


def test_an_error_gives_the_turn_back():
    turns = Turns(1)
    for _ in range(3):
        try:
            with turns.turn(1):
                raise ValueError
        except ValueError:
            pass
    with turns.turn(1):
        pass
