"""What a resumed run compares with what it was."""

from types import SimpleNamespace

from stateset_agents.config.training import TrainingConfig
from stateset_agents.training.changes import changed_settings


def changed(record, config):
    checkpoint = SimpleNamespace(
        manifest=SimpleNamespace(records=["trainer"]), record=lambda name: {"config": record}, path="step-1"
    )
    return list(changed_settings(checkpoint, {}, config))


def test_a_run_from_before_a_setting_was_there_goes_on():
    """Mutation: what a record lacks is something else than the setting's value without effect."""
    config = TrainingConfig.from_profile("balanced")
    record = config.fingerprint_fields()
    for name in ("top_entropy_share", "label_smoothing", "off_policy_threshold"):
        del record[name]
    assert changed(record, config) == []
    used = TrainingConfig.from_profile("balanced", top_entropy_share=0.5)
    assert changed(record, used) == [("training.top_entropy_share", "0.5", "1.0")]
