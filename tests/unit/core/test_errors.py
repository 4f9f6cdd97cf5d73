"""Errors told apart by what ran out."""

import errno
import os
import resource
from collections.abc import Iterator

import pytest
import torch

from stateset_agents.core.errors import is_out_of_files


@pytest.fixture
def file(tmp_path) -> Iterator[str]:
    """A file, in a process that may open no more of them."""
    path = tmp_path / "weights.pt"
    torch.save(torch.ones(3), path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, before[1]))
    held: list[int] = []
    try:
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield str(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for one in (*held, taken):
            os.close(one)


@pytest.mark.parametrize(
    "opened",
    [
        open,
        torch._C.PyTorchFileReader,
        torch._C.PyTorchFileWriter,
        lambda path: torch.from_file(path, size=3),
        lambda path: torch.ones(3).untyped_storage()._share_fd_cpu_(),
        lambda path: torch.ones(3).untyped_storage()._share_filename_cpu_(),
    ],
    ids=["python", "load", "save", "map", "share", "share by name"],
)
def test_a_process_without_a_file_to_spare_is_told_apart_whoever_says_so(file, opened):
    with pytest.raises((OSError, RuntimeError)) as raised:
        opened(file)
    assert is_out_of_files(raised.value), raised.value


class Unavailable(RuntimeError):
    """A client's own error."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("server said: Too many open files in system"),
        RuntimeError("the service answered: Too many open files"),
        RuntimeError("unable to open file </w> in read-only mode: Too many open files in system (23)"),
        RuntimeError("open file failed because of errno 23 on fopen: Too many open files in system, file path: /w"),
        Unavailable("Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
    ],
)
def test_what_another_machine_or_the_whole_system_ran_out_of_is_not_this_process(error):
    assert not is_out_of_files(error)
