"""Health and the closing report, from rows worked out by hand."""

import re
from pathlib import Path

import pytest

from stateset_agents.tracking.health import HealthStatus, assess
from stateset_agents.tracking.report import RunSummary, training_report

HALF = "a reward of at least 0.5, half of the attainable 1"


def row(step, **changes):
    return {
        "step": step,
        "episodes": 16 * step,
        "step_episodes": 16,
        "reward_mean": 0.5,
        "reward_std": 0.2,
        "reward_diversity": 0.156,
        "zero_variance_share": 0.0,
        "success_rate": 0.5,
        "length_mean": 8.0,
        "failed": 0,
        "unscored": 0,
        "truncated": 0,
        "grad_norm": 1.0,
    } | changes


def rows(count=10, **changes):
    return [row(step, **changes) for step in range(1, count + 1)]


def report(of, attainable=1.0, **more):
    arguments = {"success_criterion": HALF, "attainable": attainable, "saved_to": "./checkpoints/my_trained_agent"}
    return training_report(RunSummary.of(of, **(arguments | more)))


def test_the_documented_lines_come_first_and_word_for_word():
    run = [*rows(9), row(10, episodes=500, reward_mean=0.847, reward_std=0.123, success_rate=0.892, length_mean=8.3)]
    run = [r | {"grad_norm": 1.0 if r["step"] != 4 else 9.0} for r in run]
    text = report(run)
    assert text.startswith("""\
GRPO Agent Framework - Training Complete
======================================
Episodes: 500
Final Reward: 0.847 ± 0.123
Success Rate: 89.2%
Average Episode Length: 8.3 turns

Training Health: HEALTHY
- Reward diversity: 0.156 (good)
- Gradient stability: 0.900 (stable)
- No major issues detected

Agent saved to: ./checkpoints/my_trained_agent
""")
    assert text.endswith("""
Reward, success and length are over the last of 10 steps (16 episodes).
The attainable reward is 1.
Success is judged by a reward of at least 0.5, half of the attainable 1.
Gradient stability is the share of steps whose gradient norm is within a factor of 3 of the run's median.
Fine: Groups with equal rewards 0%; Gradient 1; Failed episodes 0.0%; Truncated episodes 0%.
Not measured, or too few steps to judge: Trend of the reward; Evaluation; Entropy; KL to the reference; \
Clipped tokens; Sampler against learner; Cut replies; Length against reward; Repetition.
""")


def test_the_shape_is_that_of_the_documents_own_example():
    """Every line of the documented example, its numbers aside, stands in a report of a healthy run in that order."""
    example = """GRPO Agent Framework - Training Complete
======================================
Episodes: 500
Final Reward: 0.847 ± 0.123
Success Rate: 89.2%
Average Episode Length: 8.3 turns

Training Health: HEALTHY
- Reward diversity: 0.156 (good)
- Gradient stability: 0.834 (stable)
- No major issues detected

Agent saved to: ./checkpoints/my_trained_agent
"""
    assert re.sub(r"\d+", "#", report(rows())).startswith(re.sub(r"\d+", "#", example))


def test_final_numbers_pool_the_last_tenth_of_the_steps_by_scored_episodes():
    # Of 20 steps the last 2 count: 12 episodes at 0.2 +- 0.1 and 4 (12 failed) at 0.6 +- 0.3.
    run = [
        *rows(18),
        row(19, step_episodes=12, reward_mean=0.2, reward_std=0.1, success_rate=0.0, length_mean=2.0),
        row(
            20,
            step_episodes=16,
            failed=8,
            unscored=4,
            reward_mean=0.6,
            reward_std=0.3,
            success_rate=1.0,
            length_mean=4.0,
        ),
    ]
    summary = RunSummary.of(run, success_criterion=HALF, attainable=1.0, saved_to=None)
    assert summary.reward_mean == pytest.approx((12 * 0.2 + 4 * 0.6) / 16)
    # Mean square: (12 (0.01 + 0.01) + 4 (0.09 + 0.09)) / 16 = 0.96 / 16.
    assert summary.reward_std == pytest.approx(0.06**0.5)
    assert summary.success_rate == pytest.approx(0.25)
    assert summary.length_mean == pytest.approx(2.5)
    assert (summary.final_steps, summary.final_episodes, summary.episodes) == (2, 28, 320)


def test_what_was_not_measured_is_said_and_not_made_up():
    text = report([{"step": 1, "episodes": 8}], attainable=None, saved_to=None)
    assert "Final Reward: not measured (no episode was scored)" in text
    assert "Success Rate: not measured" in text
    assert "Training Health: UNKNOWN" in text
    assert "- Reward diversity: not measured" in text
    assert "- Gradient stability: not measured" in text
    assert "Agent saved to: nowhere" in text
    assert "attainable" not in text


def test_a_run_without_a_step_and_one_without_weights_have_a_report_too():
    assert "Episodes: 0" in report([])
    run = [{key: value for key, value in r.items() if key != "grad_norm"} for r in rows(3)]
    text = report(run, notes=["The model has no weights: nothing was trained."], saved_to=Path("out"))
    assert "Training Health: UNKNOWN" in text
    assert "Agent saved to: out\n" in text
    assert text.endswith("The model has no weights: nothing was trained.\n")


def test_stability_is_the_share_of_gradients_within_a_factor_3_of_their_median():
    # Median of the nine norms above zero is 1.0; 0.2, 0.3 and 3.5 lie outside, 3.0 on the border; 0 is left out.
    norms = [1.0, 1.0, 3.0, 3.5, 0.2, 0.0, 1.0, 0.3, 1.0, 1.0]
    health = assess([row(i, grad_norm=norm) for i, norm in enumerate(norms, 1)])
    assert health.gradient_stability == pytest.approx(6 / 9)
    assert (health.status, health.stability_word) == (HealthStatus.WARNING, "unstable")
    assert "Unstable gradients" in health.issues[0]


def test_a_few_steps_show_neither_a_fall_nor_unstable_gradients():
    for few in (2, 9):
        falling = [row(step, reward_mean=0.9 - step / 20, grad_norm=10.0 ** (step % 3)) for step in range(1, few + 1)]
        health = assess(falling, 1.0)
        assert (health.status, health.issues) == (HealthStatus.HEALTHY, ())
        assert health.stability_word == "too few steps to judge"
    fell = [row(step, reward_mean=0.9 - step / 20, grad_norm=10.0 ** (step % 3)) for step in range(1, 13)]
    assert len(assess(fell, 1.0).issues) == 2


def test_one_is_one_step_and_one_episode():
    one = report([row(1, step_episodes=1)])
    assert "\nReward, success and length are over the only step (1 episode).\n" in one
    assert "over the last of 3 steps (16 episodes)." in report(rows(3))
    assert "over the last 2 of 20 steps (32 episodes)." in report(rows(20))
    read = {"success_criterion": "x", "attainable": 1.0, "saved_to": None, "read": True}
    assert "The loss is over the only step." in training_report(RunSummary.of([row(1, loss=1.0)], **read))
    learned = RunSummary.of(rows(3, loss=1.0), **read)
    assert "The loss is over the first and the last of 3 steps." in training_report(learned)


@pytest.mark.parametrize("broken", [None, float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_critical(broken):
    health = assess([*rows(9), row(10, grad_norm=broken)], 1.0)
    assert (health.status, health.stability_word) == (HealthStatus.CRITICAL, "unstable")
    assert health.gradient_stability == 0.9
    assert health.issues == ("1 of 10 steps had a gradient that is not finite: lower the learning rate",)


def test_a_run_that_never_had_a_gradient_is_critical():
    health = assess(rows(grad_norm=0.0, reward_diversity=0.0, zero_variance_share=1.0), 1.0)
    assert health.status is HealthStatus.CRITICAL
    assert health.issues[0].startswith("No step had a gradient, so nothing was learned")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward_diversity": 0.049}, "Low reward diversity"),
        ({"zero_variance_share": 0.6}, "60% of the groups had equal rewards"),
        ({"failed": 1}, "10 of 160 episodes failed or could not be scored"),
        ({"truncated": 8}, "50% of the episodes were cut by a limit"),
        ({"replies": 20, "cut_replies": 12}, "60% of the replies were cut by max_new_tokens: raise max_new_tokens"),
    ],
)
def test_each_signal_alone_is_a_warning_with_what_helps(changes, words):
    health = assess(rows(**changes), 1.0)
    assert health.status is HealthStatus.WARNING
    assert len(health.issues) == 1
    assert health.issues[0].startswith(words)
    assert "No major issues detected" not in report(rows(**changes))


def test_a_run_of_which_most_episodes_fail_is_critical():
    assert assess(rows(failed=5, unscored=4)).status is HealthStatus.CRITICAL
    assert assess(rows(failed=4, unscored=4)).status is HealthStatus.WARNING


def test_a_sampler_that_is_not_the_learner_is_critical():
    health = assess(rows(mismatch_size=0.2), 1.0)
    assert health.status is HealthStatus.CRITICAL
    assert health.issues[0].startswith("Sampler and learner disagree: a token's log-prob differs by 0.20 on average")


def test_diversity_is_measured_against_the_attainable_reward():
    assert assess(rows(reward_diversity=0.1), 1.0).diversity_word == "good"
    assert assess(rows(reward_diversity=0.1), 10.0).diversity_word == "low"
    assert assess(rows(reward_diversity=0.1), None).diversity_word == "good"


def test_little_diversity_near_the_maximum_is_what_success_looks_like():
    solved = rows(reward_mean=0.96, reward_diversity=0.01, zero_variance_share=0.9)
    health = assess(solved, 1.0)
    assert (health.status, health.issues) == (HealthStatus.HEALTHY, ())
    assert "- Reward diversity: 0.010 (low, as the reward is near its maximum)" in report(solved)


def test_a_run_that_learned_from_a_file_reports_its_loss_and_no_rewards():
    """Worked out: of twenty steps the final numbers are over two."""
    rows = [
        {"step": n, "episodes": 4 * n, "loss": 21.0 - n, "preference_accuracy": n / 20, "grad_norm": 1.0,
         "sampled_tokens": 0, "reward_mean": None, "length_mean": 1.0, "step_episodes": 4}
        for n in range(1, 21)
    ]  # fmt: skip
    rows[9]["eval_reward_mean"], rows[19]["eval_reward_mean"] = 0.25, 0.75
    settings = {"success_criterion": "x", "attainable": 1.0, "saved_to": "here"}
    text = training_report(RunSummary.of(rows, read=True, **settings))
    assert text.splitlines()[2:6] == [
        "Episodes: 80",
        "Final Loss: 1.500 (at first 19.500)",
        "Preference Accuracy: 97.5%",
        "Evaluated Reward: 0.750 (at first 0.250)",
    ]
    assert "Final Reward" not in text
    assert "Reward diversity" not in text
    assert "Final Reward: not measured" in training_report(RunSummary.of(rows, **settings))


def test_a_gradient_that_falls_with_the_loss_of_recorded_answers_is_no_instability():
    """Mutation: stability judged where nothing was sampled."""
    norms = [16.0, 8.0, 8.0, 4.0, 4.0, 1.0, 0.5, 0.2, 0.05, 0.02]
    read = assess([{"grad_norm": norm, "sampled_tokens": 0} for norm in norms])
    played = assess([{"grad_norm": norm, "sampled_tokens": 9} for norm in norms])
    assert (read.status, read.gradient_stability) == (HealthStatus.HEALTHY, None)
    assert played.status is HealthStatus.WARNING


def test_episodes_that_failed_are_counted_by_who_failed():
    run = [
        row(1, failed=3, failed_user=2, failed_environment=1),
        row(2, failed=1, failed_user=1, failed_environment=0, unscored=2),
    ]
    line = "6 of 32 episodes failed or could not be scored (3 user, 1 environment, 2 unscored): they are in no mean"
    assert line in report(run)
    assert "could not be scored (" not in report(rows(2))
