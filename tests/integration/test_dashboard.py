"""The dashboard over runs that real training wrote, whole and damaged."""

import json
import random
import socket
from datetime import UTC, datetime, timedelta

from stateset_agents.dashboard import answers, curves, lineage
from stateset_agents.dashboard.conversations import Wanted
from stateset_agents.dashboard.runs import Run, RunLibrary

QUESTIONS = (
    answers.overview,
    lambda run: curves.series(run, ["reward_mean", "loss", "kl"]),
    lambda run: answers.groups(run, Wanted()),
    lambda run: answers.group(run, (1, "train", 0)),
    lambda run: answers.step(run, 1),
    lineage.config,
    lineage.checkpoints,
    lambda run: lineage.verify(run, 2),
)


def only_run(folder) -> Run:
    (run,) = RunLibrary(folder).runs()
    return run


def test_a_real_run_is_shown_with_its_groups_advantages_origins_and_checkpoints(work):
    work.write(training__eval_every=8, training__eval_samples=1)
    assert work.train().code == 0
    ended = work.train("--num-episodes", "32", "--resume")
    assert ended.code == 0, ended.err
    run = only_run(work.path / "outputs")

    found = answers.overview(run)
    assert found["status"]["state"] == "finished"
    assert (found["rows"], found["resumed_at"]) == (8, [4])
    assert found["learning"]["sentence"] == "Too early to tell: 8 of at least 12 steps have a reward."
    assert {"reward_mean", "entropy", "grad_norm", "clip_fraction", "zero_variance_share"} <= set(found["keys"])
    drawn = curves.series(run, ["reward_mean"])
    rewards = [row["reward_mean"] for row in work.metrics()]
    assert [round(one, 4) for one in drawn["series"]["reward_mean"]["mean"]] == [round(one, 4) for one in rewards]
    assert drawn["evaluations"]["step"] == [2, 4, 6, 8]

    listed = answers.groups(run, Wanted(step=3, phase="train"))["groups"]
    assert len(listed) == 2
    assert answers.groups(run, Wanted(phase="eval"))["total"] == 4 * 3
    first, second = answers.group(run, (3, "train", 0))["conversations"]
    # a group of two: the better one is pushed up as far as the other is pushed down
    assert first["advantages"][0] == -second["advantages"][0] != 0
    assert (first["advantages"][0] > 0) == (first["reward"] > second["reward"])
    (row,) = first["tokens"]
    assert len(row["pieces"]) == len(row["mask"]) == len(row["advantages"]) == len(row["logprobs"])
    assert "".join(row["pieces"]).startswith("<|im_start|>user")
    assert {row["advantages"][place] for place, trained in enumerate(row["mask"]) if trained} == {
        first["advantages"][0]
    }

    config = lineage.config(run)
    assert (config["values"]["training.learning_rate"], config["origins"]["training.learning_rate"][:9]) == (
        1e-3,
        "run.json:",
    )
    assert config["origins"]["training.num_episodes"] == "--num-episodes"
    whole = lineage.verify(run, 8)
    assert (whole["good"], whole["problem"]) == (True, None)
    weights = work.path / "outputs" / "checkpoints" / "step-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    damaged = lineage.verify(run, 8)
    assert not damaged["good"]
    assert damaged["problem"] == (
        "./checkpoints/step-8 is damaged: model.safetensors is not what was written (its SHA-256 differs)"
    )


def test_a_run_is_running_stalled_or_gone_by_its_heartbeat(work):
    assert work.train("--num-episodes", "4").code == 0
    run = only_run(work.path / "outputs")
    status = work.status() | {"state": "running", "host": "another-machine"}
    file = work.path / "outputs" / "status.json"
    last = datetime.fromisoformat(status["updated"])
    file.write_text(json.dumps(status))
    assert run.status(last + timedelta(seconds=100))["state"] == "running"
    assert run.status(last + timedelta(seconds=130))["state"] == "stalled"
    file.write_text(json.dumps(status | {"host": socket.gethostname()}))
    assert run.status(last + timedelta(seconds=20))["state"] == "running"
    assert run.status(last + timedelta(seconds=40))["state"] == "interrupted"  # nobody of this machine is that process
    for text in (
        "",
        "{",
        "[]",
        '{"state": 1}',
        json.dumps(status | {"updated": "yesterday"}),
        json.dumps(status | {"x": 1}),
    ):
        file.write_text(text)
        assert run.status(datetime.now(UTC))["state"] in ("unknown", "running")


def test_whatever_happens_to_the_files_the_page_answers(work):
    work.write(training__eval_every=8, training__eval_samples=1)
    assert work.train().code == 0
    folder = work.path / "outputs"
    whole = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    source = random.Random(5)
    for _ in range(60):
        for path, content in whole.items():
            damaged = bytearray(content)
            for _ in range(source.randint(0, 6)):
                match source.randint(0, 3):
                    case 0:
                        damaged = damaged[: source.randint(0, len(damaged))]
                    case 1:
                        at = source.randint(0, len(damaged))
                        damaged[at:at] = bytes(
                            source.choices(b'\n\r\0{}[]":,0eE-+\xff\xe2\x80\xa8 ', k=source.randint(1, 30))
                        )
                    case 2:
                        at = source.randint(0, len(damaged))
                        del damaged[at : at + source.randint(1, 200)]
                    case 3 if damaged:
                        damaged[source.randrange(len(damaged))] = source.randrange(256)
            path.write_bytes(bytes(damaged))
        library = RunLibrary(folder)
        answers.runs(library)
        for ask in QUESTIONS:
            ask(library.runs()[0])


def test_a_page_that_stays_open_follows_every_damage_and_repair(work):
    assert work.train().code == 0
    log = work.path / "outputs" / "metrics.jsonl"
    content = log.read_bytes()
    run = only_run(work.path / "outputs")
    source = random.Random(6)
    for _ in range(200):
        log.write_bytes(content[: source.randint(0, len(content))])
        answers.version(run)
        assert run.metrics.rows == log.read_bytes().count(b"\n")
    log.write_bytes(content)
    assert answers.overview(run)["rows"] == 4
