"""Compiled kernels, without their cost at import.

``@kernel`` marks a plain function that numba compiles at its first call and caches on disk (beside the package, or
in the user's cache folder where the package folder cannot be written). A kernel may call other kernels by name.
``.plain`` runs it as written, without compiling.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class LazyKernel(Generic[P, R]):
    """A function compiled by ``numba.njit`` when it is first called."""

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        self.py_func = function
        self._options = options
        self._compiled: Callable[P, R] | None = None
        self._work = 0
        update_wrapper(self, function)

    @property
    def compiled(self) -> Callable[P, R]:
        """The numba dispatcher. Kernels that the function names are given to numba as their own dispatchers."""
        if self._compiled is None:
            import numba

            function = self._calling(lambda callee: callee.compiled)
            self._compiled = numba.njit(cache=True, **self._options)(function)
        return self._compiled

    @property
    def plain(self) -> Callable[P, R]:
        """The function in plain Python, the kernels it calls too: quicker than compiled code where there is little to
        do."""
        return self._calling(lambda callee: callee.plain)

    def for_work(self, amount: int, worth: int) -> Callable[P, R]:
        """The plain function until the work given to it adds up to ``worth``, from then on the compiled one.

        Loading numba and a kernel costs a second or two once; a process with little to do never pays it.
        """
        self._work += amount
        return self.compiled if self._compiled is not None or self._work > worth else self.plain

    def _calling(self, version: Callable[[LazyKernel[Any, Any]], Callable[..., Any]]) -> Callable[P, R]:
        """The function, with each kernel that it names replaced by a version of it."""
        function = self.py_func
        names = function.__code__.co_names
        scope = function.__globals__
        called = {name: version(scope[name]) for name in names if isinstance(scope.get(name), LazyKernel)}
        if not called:
            return function
        copy = FunctionType(function.__code__, scope | called, function.__name__)
        return cast(Callable[P, R], update_wrapper(copy, function))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.compiled(*args, **kwargs)


def kernel(**options: Any) -> Callable[[Callable[P, R]], LazyKernel[P, R]]:
    """Decorator: ``@kernel()`` or ``@kernel(fastmath=True, nogil=True)``; options are numba's."""

    def wrap(function: Callable[P, R]) -> LazyKernel[P, R]:
        return LazyKernel(function, options)

    return wrap
