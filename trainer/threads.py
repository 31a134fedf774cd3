"""Numerical libraries held to one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Holds OpenMP (scikit-learn's trees) and BLAS to one thread; TensorFlow's own threads are not touched.

    Their threads wait for each other by spinning: beside one other busy process the trees grew 30 times slower on two
    cores than with one thread. Alone, a second thread saves a third.
    """
    import sklearn.ensemble  # noqa: F401 - loads OpenMP, which can be held back only once it is there
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
