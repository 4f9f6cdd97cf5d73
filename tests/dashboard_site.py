"""Run folders as the real writer makes them, and a dashboard behind a real socket."""

import http.client
import json
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn

from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.dashboard.access import LOOPBACK, host_headers
from stateset_agents.dashboard.runs import RunLibrary
from stateset_agents.dashboard.server import create_app
from stateset_agents.tracking.run_folder import RunFolder


def row(step: int, **more: Any) -> dict[str, Any]:
    """One step of a run that gets better by 0.01 a step."""
    return {
        "step": step,
        "loss": 0.5,
        "grad_norm": 1.0,
        "reward_mean": 0.2 + 0.01 * step + (0.001 if step % 2 else -0.001),
        "reward_std": 0.2,
        "reward_diversity": 0.1,
        "sampled_tokens": 100,
        "seconds": 36.0,
    } | more


def group(scenario: str, rewards: list[float | None], *, says: str = "Hello.") -> TrajectoryGroup:
    """Conversations of one turn."""
    episodes = [
        MultiTurnTrajectory(
            scenario,
            f"{scenario}/{place}",
            [ConversationTurn("user", "Hi."), ConversationTurn("assistant", says)],
            reward=reward,
            turn_rewards=[] if reward is None else [reward],
            breakdown={} if reward is None else {"kindness": reward},
        )
        for place, reward in enumerate(rewards)
    ]
    return TrajectoryGroup.of(scenario, episodes)


def make_run(path: Path, steps: int = 20, *, config: str = "training:\n  seed: 1\n") -> Path:
    """A finished run with one group of conversations a step."""
    with RunFolder.create(path, config_yaml=config) as folder:
        for step in range(1, steps + 1):
            folder.log_trajectories(step, [group("price", [0.1, 0.5]), group("order", [0.3, None])])
            folder.log_metrics(row(step))
        folder.set_status("finished")
    return path


MEASURED = (
    "loss entropy grad_norm clip_fraction ratio_mean mismatch_mean mismatch_size mismatch_max learning_rate reward_std "
    "reward_min reward_max reward_diversity zero_variance_share success_rate length_mean reward/helpfulness "
    "reward/correctness temperature tokens_per_second rollout_seconds train_seconds seconds"
).split()
COUNTED = (
    "episodes trained_tokens forwarded_tokens unique_tokens step_episodes failed failed_agent failed_user "
    "failed_environment failed_reward unscored truncated edited_turns replies cut_replies sampled_tokens"
).split()
NOT_MEASURED = "kl masked_fraction value_loss preference_accuracy step_kl step_share".split()
"""The keys of a real row, beside `step`, `reward_mean` and `updated`."""
SPIKE = 9.0


def make_long_run(path: Path, steps: int) -> int:
    """A run of so many steps with a reward that rises from 0 to 0.5, but for one of `SPIKE` in the middle.

    Returns:
        Bytes of its metrics, whose last line is torn.
    """
    with RunFolder.create(path, config_yaml="training:\n  seed: 1\n") as folder:
        folder.log_trajectories(steps, [group("price", [0.1, 0.5])])
        folder.log_metrics({"step": 0})
        folder.set_status("finished")
    source = random.Random(0)
    rest = {name: source.random() for name in MEASURED} | dict.fromkeys(COUNTED, 128) | dict.fromkeys(NOT_MEASURED)
    tail = json.dumps(rest | {"updated": True})[1:]
    with (path / "metrics.jsonl").open("w") as log:
        for step in range(1, steps + 1):
            reward = SPIKE if step == steps // 2 + 1 else 0.5 * step / steps + source.gauss(0, 0.1)
            log.write(f'{{"step": {step}, "reward_mean": {reward}, {tail}\n')
        log.write('{"step": 999')
    return (path / "metrics.jsonl").stat().st_size


@dataclass
class Site:
    """A dashboard that is being served."""

    port: int
    library: RunLibrary

    def get(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, **asked: Any):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path + (f"?{urlencode(asked, doseq=True)}" if asked else ""), skip_host=True)
            for name, value in ({"Host": f"127.0.0.1:{self.port}"} | (headers or {})).items():
                connection.putheader(name, value)
            connection.endheaders()
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def ask(self, question: str, **asked: Any) -> Any:
        """A good answer."""
        status, _, body = self.get(f"/api/{question}", **asked)
        assert status == 200, body
        return json.loads(body)


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """A dashboard of the runs of a folder."""
    library = RunLibrary(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = create_app(library, host_headers(LOOPBACK, port), closing=lambda: server.should_exit)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Site(port, library)
        finally:
            server.should_exit = True
            thread.join(10)
