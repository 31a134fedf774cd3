"""Batches side by side: answers come in order, few are read ahead, and an error is not lost."""

import threading

import pytest

from deploy.predict import _in_turn


def test_answers_come_in_the_order_of_the_batches_and_few_are_read_ahead():
    read, second = [], threading.Event()

    def batches():
        for number in range(20):
            read.append(number)
            yield number

    def answer(number):
        if number == 0:
            assert second.wait(10)  # the first one ends after the second
        if number == 1:
            second.set()
        return number * 10

    for number, found in enumerate(_in_turn(batches(), answer)):
        assert found == number * 10
        assert len(read) <= number + 4
    assert len(read) == 20


def test_an_error_in_a_batch_is_raised():
    def answer(number):
        if number == 3:
            raise ValueError("the fourth")
        return number

    with pytest.raises(ValueError, match="the fourth"):
        list(_in_turn(iter(range(10)), answer))
