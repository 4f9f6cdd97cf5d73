"""What every test stands on: one thread for torch, no network, nobody's settings but the tests' own.

The environment is set here, at import, because torch and huggingface_hub read it when they are first imported.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for name in [name for name in os.environ if name.startswith(("GRPO_", "WANDB_"))]:
    del os.environ[name]

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "offline",
    # Kept between runs: the embedded model is dequantised into it once, which takes longer than any test.
    "GRPO_CACHE_DIR": str(Path.home() / ".cache" / "grpo-tests"),
}


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Undo what a test did to torch's thread count; torch itself is imported only by tests that need it."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stopped_servers() -> Iterator[list[Any]]:
    """Servers that were asked to end: nobody waits for one before the last test is over."""
    servers: list[Any] = []
    yield servers
    for server in servers:
        server.join()


@pytest.fixture
def endpoint_server(stopped_servers: list[Any]) -> Iterator[Callable[[Any], Any]]:
    """Starts an `EndpointServer` for a behaviour; see `endpoint_server.py`."""
    from endpoint_server import EndpointServer

    servers = []

    def start(behaviour: Any) -> EndpointServer:
        servers.append(EndpointServer(behaviour).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
    stopped_servers += servers


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs commands in processes of their own; see `launcher.py`."""
    from workplace import Launcher

    launcher = Launcher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()
