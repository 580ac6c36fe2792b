"""The type checks of the tests: the first calls of each function in each test."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import type_checks
from milepost.metrics import voc

RIGHT, WRONG = np.arange(4, dtype=np.float32), "0 1 2"


def test_a_wrong_type_is_refused() -> None:
    with pytest.raises(TypeCheckError, match=r"metrics\.curves\.voc"):
        voc(WRONG)


@pytest.mark.parametrize("_", range(2))
def test_a_function_is_checked_in_its_first_calls_of_each_test(_: int) -> None:
    for _ in range(type_checks.ENOUGH):
        voc(RIGHT)
    with pytest.raises(Exception) as caught:
        voc(WRONG)
    assert not isinstance(caught.value, TypeCheckError)


def test_after_a_test_all_functions_are_checked_again() -> None:
    test_a_function_is_checked_in_its_first_calls_of_each_test(0)
    type_checks.check_again()
    test_a_wrong_type_is_refused()
