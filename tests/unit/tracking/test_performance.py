"""Where the time went, by hand."""

from stateset_agents.tracking.performance import performance_lines

ROW = {"rollout_seconds": 6.0, "train_seconds": 3.0, "save_seconds": 0.5, "other_seconds": 0.5, "memory_mb": 700.4}


def test_the_parts_of_a_step_add_up_and_what_overlaps_is_told_apart():
    waited = {"generate_seconds": 4.5, "environment_seconds": 0.0, "reward_seconds": 3.0}
    rows = [{**ROW, **waited}, {**ROW, **waited, "memory_mb": 812.0, "gpu_memory_mb": 2048.0}]
    assert performance_lines(rows) == [
        "Time of a step: 10.00 s in the mean: conversations 60%, learning 30%, saving 5%, the rest 5%.",
        "Time in conversations: at least one of them was waiting for the model 75%, the environment 0%, rewards 50% "
        "(these overlap).",
        "Memory at most: 812 MB, 2048 MB on the GPU.",
    ]


def test_rows_that_nobody_timed_have_no_lines():
    assert performance_lines([]) == performance_lines([{"step": 1, "reward_mean": 0.5}]) == []
