from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads, here and in processes that tests start

import pytest
import torch

from tiny import write_tiny_store


class Surroundings:
    """Leaves the folders of tests, which are removed, and leaves modules and collected tests out of garbage collections.

    Such a collection would take a fifth of a second.
    """

    num_modules = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Leave the current folder if it was that of the test, which has been removed."""
        yield
        try:
            os.getcwd()
        except FileNotFoundError:
            os.chdir(item.config.rootpath)

    def pytest_runtest_setup(self) -> None:
        if len(sys.modules) > self.num_modules + 50:  # a test before has imported a library
            self.num_modules = len(sys.modules)
            gc.collect()
            gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Surroundings())


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Use one thread: for small tensors on shared cores, it is faster and gives the same sums everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """Do not wait for the disk: what a killed process wrote is already in the kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 12 training and 4 test videos, which tests must not change."""
    return write_tiny_store(tmp_path_factory.mktemp("tiny") / "store")


@pytest.fixture(scope="session")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the examples of docstrings and documentation run."""
    from example_files import write_example_files

    return write_example_files(tmp_path_factory.mktemp("examples") / "files")


@pytest.fixture(scope="session")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a weak model, which tests must not change."""
    from evaluation_report_helpers import weak_folder

    return weak_folder(tmp_path_factory.mktemp("w"))


@pytest.fixture(scope="session")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a strong model on the same clips, which tests must not change."""
    from evaluation_report_helpers import strong_folder

    return strong_folder(tmp_path_factory.mktemp("s"))


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a study, which tests must not change."""
    from evaluation_report_helpers import orders_folder

    return orders_folder(tmp_path_factory.mktemp("o"))
