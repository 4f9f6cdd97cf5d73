"""Watchers of a run, and what they remember."""

import json

from stateset_agents.training.callbacks import Callback
from stateset_agents.training.diagnostics import DiagnosticsMonitor


def test_a_callback_that_overrides_nothing_watches_everything_and_remembers_nothing():
    class Quiet(Callback):
        pass

    quiet = Quiet()
    assert quiet.name == "Quiet"
    quiet.on_run_start(10, 0)
    quiet.on_step_end({"step": 1})
    quiet.on_run_end([{"step": 1}])
    quiet.load_state_dict(quiet.state_dict())
    assert quiet.state_dict() == {}


def rows() -> list[dict[str, float]]:
    return [
        {
            "step": step,
            "reward_mean": 0.05 * step,
            "reward_diversity": 0.3,
            "zero_variance_share": 0.0,
            "grad_norm": 1.0,
        }
        for step in range(1, 13)
    ]


def test_a_monitor_knows_nothing_before_the_first_step_and_judges_the_rows_afterwards():
    monitor = DiagnosticsMonitor(attainable=1.0)
    assert monitor.get_health_status().status == "UNKNOWN"
    for row in rows():
        monitor.on_step_end(row)
    assert monitor.get_health_status().status != "UNKNOWN"
    assert len(monitor.rows) == 12


def test_a_monitor_s_verdict_survives_a_restart_through_json():
    """Mutation: an empty state makes a resumed run UNKNOWN."""
    monitor, resumed = DiagnosticsMonitor(1.0), DiagnosticsMonitor(1.0)
    for row in rows():
        monitor.on_step_end(row)
    resumed.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert resumed.get_health_status() == monitor.get_health_status()


def test_a_row_is_kept_as_it_was_when_the_step_ended():
    """Mutation: keeping the caller's own mapping."""
    monitor, row = DiagnosticsMonitor(), {"step": 1}
    monitor.on_step_end(row)
    row["step"] = 2
    assert monitor.rows == [{"step": 1}]


def test_flat_groups_at_the_attainable_reward_are_success_and_otherwise_a_problem():
    """Mutation: a monitor that does not pass on what is attainable."""
    verdicts = []
    for attainable in (1.0, None):
        monitor = DiagnosticsMonitor(attainable)
        for row in rows():
            monitor.on_step_end(row | {"reward_mean": 0.96, "reward_diversity": 0.01, "zero_variance_share": 0.9})
        verdicts.append(monitor.get_health_status().status)
    assert verdicts[0] != verdicts[1]
