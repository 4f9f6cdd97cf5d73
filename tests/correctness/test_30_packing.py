"""Row 30. Old log-probs under another packing than the new ones: the ratio is wrong where one row meets the next."""

import pytest
import torch

from stateset_agents.training import objective as objective_module
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.samples import samples_of


def rows_of(groups):
    return [row for group in groups for talk in group.trajectories for row in talk.rows]


def test_positions_begin_again_with_every_row_and_go_on_after_a_shared_prompt(kit):
    """Prompts of 3 and 2 tokens; replies of 3, 1 and 2, of which the last token is predicted and never read.

    Mutation: positions of replies by their place in the pack in training/packing.py: fails.
    """
    one, other = [10, 11, 12], [20, 21]
    long, short = kit.row((one, False), ([30, 31, 32], True)), kit.row((one, False), ([33], True))
    third, fourth = kit.row((other, False), ([34, 35], True)), kit.row((other, False), ([36, 37], True))
    groups = [kit.group((1.0, [long]), (0.0, [short])), kit.group((1.0, [third]), (0.0, [fourth]))]
    batch = PackedBatch.of(samples_of(groups, kit.config(), 10), torch.device("cpu"))
    assert batch.ids.tolist() == [10, 11, 12, 30, 31, 20, 21, 34, 36]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 2]
    assert batch.predictors.tolist() == [2, 3, 4, 2, 6, 7, 6, 8]


@pytest.mark.parametrize("size", [8, 3, 1])
def test_packed_rows_have_the_log_probs_of_rows_one_by_one(kit, size):
    """By the model's own forward pass. Nine rows of eight conversations, packed by eight, by three, one by one.

    Mutation: a mask in training/packing.py under which replies see each other: fails with 3.1 nats by three; positions
    of replies by their place in the pack: fails.
    """
    groups = kit.two_groups()
    learner = kit.learner(batch_size=size)
    packs = [
        PackedBatch.of(part, torch.device("cpu"))
        for part in learner.micro_batch.cut(samples_of(groups, learner.config, 20))
    ]
    with torch.no_grad():
        packed = torch.cat([learner.policy.logprobs(pack)[0] for pack in packs])
        alone = torch.cat([kit.stock_logprobs(kit.tiny().model, row) for row in rows_of(groups)])
    assert len(packed) == 67
    assert (packed - alone).abs().max() < 2e-5


def test_the_ratio_of_the_second_pass_is_right_at_every_token(kit, monkeypatch):
    """Three conversations a micro-batch; before and after the first update row by row, by the model's own pass.

    Mutation: old log-probs in another order in training/learner.py: fails with 5.2 nats.
    """
    groups, ratios, weights = kit.two_groups(), [], []
    learner = kit.learner(batch_size=3, num_iterations=2, learning_rate=2e-3)
    original, update = objective_module.policy_loss, learner._update

    def recording(*arguments, **options):
        result = original(*arguments, **options)
        ratios.append(result.ratio)
        return result

    def watching(rate):
        weights.append(kit.masters(learner))
        return update(rate)

    monkeypatch.setattr(objective_module, "policy_loss", recording)
    learner._update = watching
    learner.step(groups, max_tokens=20)
    policy = kit.tiny().model
    before = torch.cat([kit.stock_logprobs(policy, row) for row in rows_of(groups)])
    policy.load_state_dict(weights[1], strict=False)
    after = torch.cat([kit.stock_logprobs(policy, row) for row in rows_of(groups)])
    assert len(ratios) == 6
    assert torch.equal(torch.cat(ratios[:3]), torch.ones(67))
    expected = (after - before).detach()
    assert expected.abs().max() > 1
    assert (torch.cat(ratios[3:]).log() - expected).abs().max() < 5e-5
