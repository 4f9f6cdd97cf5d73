"""A run in which every fifth conversation is broken by somebody else than the agent."""

import json
import statistics
from collections import Counter

import pytest

from stateset_agents import ConversationEnvironment, MultiTurnAgent, train
from stateset_agents.agents import AgentConfig, LocalChat
from stateset_agents.core.reward import reward_function
from stateset_agents.engines.chat_model import ChatFailed
from stateset_agents.environments import ModelUser
from stateset_agents.training import learner as learner_module

SCENARIOS = [{"id": name, "user_responses": [f"I have a question about {name}."]} for name in ("refunds", "orders")]
SETTINGS = {
    "num_generations": 4,
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "scale_rewards": "none",
    "mixed_precision": False,
    "eval_every": 0,
}


class Unreliable:
    """The tiny model over a bad line: of its answers every sixteenth is an error, nothing, or a loop."""

    def __init__(self):
        self.model = LocalChat("tiny", dtype="float32", device="cpu")
        self.calls = self.injected = 0

    async def complete(self, messages, **request):
        self.calls += 1
        if self.calls % 16 == 0:
            self.injected += 1
            fault = (ChatFailed("the server answered 500"), "", "no " * 60)[self.injected % 3]
            if isinstance(fault, Exception):
                raise fault
            return fault
        return "so: " + await self.model.complete(messages, **request)  # tiny's own words may be none at all

    def describe(self):
        return {**self.model.describe(), "model": "tiny over a bad line"}


class Unreliably(ConversationEnvironment):
    """Of its steps every seventeenth breaks."""

    steps = injected = 0

    async def step(self, state, action):
        self.steps += 1
        if self.steps % 17 == 0:
            self.injected += 1
            raise (OSError("database is locked"), TimeoutError("no answer in time"))[self.injected % 2]
        return await super().step(state, action)


@reward_function
async def vowels(turns, context=None):
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)


async def test_a_run_with_a_fifth_of_its_conversations_broken_completes_counts_them_and_learns_from_the_others(
    monkeypatch, tmp_path, capsys
):
    """Mutations: a failure that keeps reward 0.0 (rollouts/episode.py, `_fail`) or one that stays in the group
    (core/trajectory.py, `TrajectoryGroup.of`): fails at the advantages; a user's failure blamed on the environment
    (core/environment.py without `UserFailed`): fails at the counts.
    """
    trained, step, policy_samples = [], learner_module.Learner.step, learner_module.policy_samples

    def watched_step(self, groups, *arguments, **options):
        trained.append((list(groups), []))
        return step(self, groups, *arguments, **options)

    def watched_samples(*arguments):
        samples = policy_samples(*arguments)
        trained[-1][1].extend(samples)
        return samples

    monkeypatch.setattr(learner_module.Learner, "step", watched_step)
    monkeypatch.setattr(learner_module, "policy_samples", watched_samples)
    model = Unreliable()
    environment = Unreliably(SCENARIOS, max_turns=2, user=ModelUser(model, temperature=1.0, max_tokens=5, seed=3))
    agent = MultiTurnAgent(AgentConfig("tiny", dtype="float32", device="cpu", temperature=1.0, max_new_tokens=5))
    await train(agent, environment, 80, reward_fn=vowels, config_overrides=SETTINGS, output_dir=tmp_path / "run")
    report = capsys.readouterr().out

    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    episodes = [json.loads(line) for line in (tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()]
    injected = {"user": model.injected, "environment": environment.injected}
    counted = {who: sum(row[f"failed_{who}"] for row in rows) for who in ("agent", "user", "environment", "reward")}
    logged = Counter(episode["outcome"] for episode in episodes)
    share = sum(injected.values()) / len(episodes)
    print(f"episodes {len(episodes)}  injected {injected} ({share:.0%})  counted {counted}  logged {dict(logged)}")

    assert (len(rows), len(episodes)) == (10, 80)
    assert 0.15 <= share <= 0.25
    assert counted == {"agent": 0, **injected, "reward": 0}
    assert {who: logged[who] for who in injected} == injected
    assert sum(row["failed"] for row in rows) == sum(injected.values())
    left = f"{sum(injected.values())} of 80 episodes failed or could not be scored ({injected['user']} user, "
    assert left + f"{injected['environment']} environment)" in report
    assert report == (tmp_path / "run" / "report.txt").read_text()

    for episode in episodes:
        failed = episode["outcome"] in injected
        assert (episode["reward"] is None) == failed
        assert bool(episode.get("error")) == failed
        assert (episode["user"]["model"], episode["user"]["temperature"], episode["user"]["seed"]) == (
            "tiny over a bad line",
            1.0,
            3,
        )

    checked = 0
    for groups, samples in trained:
        advantage = {id(sample.row): sample.advantage for sample in samples}
        for group in groups:
            valid = [vowel_share(episode) for episode in group.trajectories]
            assert not any(id(row) in advantage for episode in group.failures for row in episode.rows)
            for reward, episode in zip(valid, group.trajectories, strict=True):
                for row in episode.rows:
                    if id(row) in advantage:
                        assert advantage[id(row)] == pytest.approx(reward - statistics.fmean(valid), abs=1e-9)
                        checked += bool(group.failures)
    assert checked >= 10  # of groups that lost somebody


def vowel_share(episode):
    text = "".join(turn.content for turn in episode.assistant_turns).lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)
