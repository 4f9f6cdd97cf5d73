"""What belongs to everybody in the process stays as it was."""

import random
import threading

import numpy
import pytest
import torch

from stateset_agents.engines.base import GenerationRequest, SamplingParams


def work(kit):
    return [
        GenerationRequest(f"{i}", kit.ids(20 + 60 * i, i), SamplingParams(max_new_tokens=12, top_p=0.9))
        for i in range(5)
    ]


def threads_of_a_new_thread():
    counts = []
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return counts[0]


async def test_the_thread_count_of_no_other_thread_changes(kit):
    torch.set_num_threads(3)
    async with kit.engine() as engine:
        seen = set()
        hook = engine._model.base_model.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.add((kwargs["input_ids"].shape[1], torch.get_num_threads())), with_kwargs=True
        )
        await kit.together(engine, work(kit))
        hook.remove()
        assert {(32, 1), (64, 3), (256, 3)} <= seen
        assert torch.get_num_threads() == 3
        assert threads_of_a_new_thread() == 3
    assert threads_of_a_new_thread() == 3


async def test_a_failed_pass_gives_the_worker_its_threads_back(kit):
    torch.set_num_threads(2)
    loaded = kit.tiny()
    requests = work(kit)
    async with kit.engine(loaded) as engine:
        expected = kit.said(await kit.together(engine, requests))

        def fail(*_):
            hook.remove()
            raise RuntimeError("device lost")

        hook = loaded.model.base_model.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="device lost"):
            await engine.generate(requests[0])
        seen = set()
        loaded.model.base_model.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.add((kwargs["input_ids"].shape[1], torch.get_num_threads())), with_kwargs=True
        )
        assert kit.said(await kit.together(engine, requests)) == expected
    assert seen == {(32, 1), (64, 2), (256, 2)}


async def test_no_random_state_no_mode_and_no_weight_changes(kit):
    loaded = kit.tiny()
    weights = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    wants_gradient = [parameter.requires_grad for parameter in loaded.model.parameters()]
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    async with kit.engine(loaded) as engine:
        await kit.together(engine, work(kit))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before[1:]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.get_default_dtype() is torch.float32
    assert not loaded.model.training
    assert [parameter.requires_grad for parameter in loaded.model.parameters()] == wants_gradient
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.model.state_dict().items())
    assert not any(tensor.is_inference() for tensor in (*loaded.model.parameters(), *loaded.model.buffers()))


async def test_the_model_can_be_trained_and_called_as_before(kit):
    loaded = kit.tiny()
    ids = torch.tensor([kit.ids(20)])
    expected = kit.tiny().model(input_ids=ids, labels=ids).loss
    async with kit.engine(loaded) as engine:
        await kit.together(engine, work(kit))
        loss = loaded.model(input_ids=ids, labels=ids).loss
        assert torch.equal(loss, expected)
        loss.backward()
        assert all(parameter.grad is not None for parameter in loaded.model.parameters())
        generated = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=1
        )
    assert generated.shape == (1, 23)
