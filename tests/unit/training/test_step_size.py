"""What a step holds, worked out by hand, and a step that does not fit is refused before anything is loaded."""

from dataclasses import replace

import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from stateset_agents import ConversationEnvironment, MultiTurnAgent, ToolAgent, train
from stateset_agents.agents import ToolLimits
from stateset_agents.agents.config import AgentConfig
from stateset_agents.chat.tool_format import FORMATS
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import Environment
from stateset_agents.core.errors import ModelError
from stateset_agents.core.records import Record
from stateset_agents.core.tools import as_tools
from stateset_agents.engines.packed import PackedModel
from stateset_agents.models import LoadedModel, attach_lora, load_model
from stateset_agents.models.facts import ModelFacts
from stateset_agents.models.memory import GIB, Memory
from stateset_agents.training import step_size
from stateset_agents.training.packing import PackedBatch, Sample, SharedPrefixPlan
from stateset_agents.training.precision import MasterWeights
from stateset_agents.training.step_size import StepSize, kept_by_layer

GPU = Memory("a GPU", 80 * GIB, 80 * GIB)
RAM = Memory("RAM", 12 * GIB, 16 * GIB)
SIZE = StepSize(
    opening=100,
    rest=300,
    in_flight=20,
    group=8,
    per_pass=16,
    per_step=32,
    half=True,
    recomputes=False,
    dtype="auto",
    adapters=False,
    reference=False,
)
FACTS = ModelFacts(
    1000,
    "float32",
    hidden=10,
    layers=4,
    kv_elements_per_token=16,
    vocabulary=50,
    context=4096,
    inner=30,
    queries=8,
    model_type="llama",
)
OF_A_LAYER = 2 * (10 * 4 + 10 * 2) + (10 + 8 + 10) * 2 + (8 + 8 + 4 + 4) * 2 + 4 * 30 * 2
UNDER_ADAPTERS = 2 * 10 * 4 + (8 + 8 + 4 + 4) * 2 + 3 * 30 * 2
OF_A_PLAIN_LAYER = 2 * 10 * 2 + (10 + 8 + 10) * 2 + (8 + 8 + 4 + 4) * 2 + 30 * 2


def agent(**more) -> AgentConfig:
    return AgentConfig(model_name="tiny", max_new_tokens=40, **more)


def test_what_a_step_holds_follows_the_engine_and_the_learner():
    held = SIZE(FACTS, GPU)
    assert held.cache == 32 * 512 * 16 * 2  # 20 slots become 32, 400 tokens 512, sixteen bfloat16 numbers each
    read = 2 * 100 + 16 * 300  # two openings, and what follows them sixteen times
    logits, head = 50 * (512 * 2 + 3 * 64 * 4), 50 * 10 * 2
    assert held.activations == read * 4 * OF_A_LAYER + logits + head
    plain = replace(FACTS, model_type="opt")
    assert SIZE(plain, GPU).activations == read * 4 * OF_A_PLAIN_LAYER + logits + head
    adapted = replace(SIZE, adapters=True)  # neither head nor norms are trained
    assert adapted(FACTS, GPU).activations == read * 4 * (OF_A_LAYER - 2 * 10 * 2) + logits
    some = replace(adapted, everywhere=False)
    assert some(FACTS, GPU).activations == read * 4 * UNDER_ADAPTERS + logits
    assert some(plain, GPU).activations == read * 4 * (OF_A_PLAIN_LAYER - (10 + 8 + 10) * 2) + logits
    assert held.conversations == 32 * 400 * 200
    assert held.copies == 0
    assert held.total == max(held.cache, held.activations) + held.conversations


def test_recomputed_layers_keep_their_input_and_one_of_them_all_of_it():
    read = 2 * 100 + 16 * 300
    held = replace(SIZE, recomputes=True)(FACTS, GPU)
    assert held.activations == read * (4 * 10 * 2 + OF_A_LAYER) + 50 * (512 * 2 + 3 * 64 * 4) + 50 * 10 * 2


def kept_by_a_layer(kit, model_class, config, compute, targets=None):
    """Bytes for each token: of the storages that autograd is seen to keep, those that one more layer adds."""
    row = kit.row(([3, 4], False), ([5 + place % 50 for place in range(30)], True))
    batch = PackedBatch.of([Sample(row, 1.0, 1.0, 0, 0)], torch.device("cpu"))

    def kept(layers):
        config.num_hidden_layers = layers
        model = model_class(config).eval()
        if targets is not None:
            attach_lora(LoadedModel("small", model, None), r=2, target_modules=targets)
        MasterWeights(model, compute)
        seen = {one.untyped_storage().data_ptr(): 0 for one in model.parameters()}
        alive = []

        def keep(tensor):
            alive.append(tensor)
            seen.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            PackedModel(model).hidden(batch.ids, batch.positions, SharedPrefixPlan(batch))
        return sum(seen.values())

    return (kept(3) - kept(2)) / batch.tokens


COMPUTED_IN = pytest.mark.parametrize(("compute", "width"), [(torch.bfloat16, 2), (torch.float32, 4)], ids=str)


@COMPUTED_IN
@pytest.mark.parametrize(("inner", "heads", "keys", "each"), [(384, 4, 4, 32), (700, 4, 1, 32), (160, 8, 2, 64)])
def test_what_a_layer_keeps_is_what_autograd_is_seen_to_keep(kit, compute, width, inner, heads, keys, each):
    """Mutation: a fixed number of hidden sizes; no float32 norms."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        head_dim=each,
    )
    counted = kept_by_a_layer(kit, LlamaForCausalLM, config, compute)
    config.num_hidden_layers = 1
    estimated = kept_by_layer(ModelFacts.of(config.to_dict(), 0, ""), width)
    assert 0.94 * counted < estimated <= counted


FAMILIES = {
    "Llama": ("q_proj", "v_proj"),
    "Mistral": ("q_proj", "v_proj"),
    "Qwen2": ("q_proj", "v_proj"),
    "Qwen3": ("q_proj", "v_proj"),
    "SmolLM3": ("q_proj", "v_proj"),
    "Gemma": ("q_proj", "v_proj"),
    "Granite": ("q_proj", "v_proj"),
    "Phi3": ("qkv_proj",),
    "Mixtral": ("q_proj", "v_proj"),
    "Cohere": ("q_proj", "v_proj"),
    "Phi": ("q_proj", "v_proj"),
    "StableLm": ("q_proj", "v_proj"),
    "GPT2": ("c_attn",),
    "GPTNeoX": ("query_key_value",),
    "OPT": ("q_proj", "v_proj"),
    "Starcoder2": ("q_proj", "v_proj"),
}
"""What a model learns with where only some of its matrices have adapters."""
NEAR = ("Llama", "Mistral", "Qwen2", "SmolLM3", "Granite")


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@COMPUTED_IN
@pytest.mark.parametrize("trained", ["all weights", "adapters", "some adapters"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_keeps_less_than_is_estimated(kit, family, trained, compute, width):
    """Mutation: every block is a Llama's; adapters keep what weights do; what a ReLU makes is counted twice."""
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512}
    if family in ("GPT2", "GPTNeoX", "OPT"):
        del sizes["num_key_value_heads"]
    if family == "GPT2":
        sizes = {"n_embd": 128, "n_head": 4, "n_inner": 512}
    own = {"OPT": {"ffn_dim": 512, "word_embed_proj_dim": 128}, "Gemma": {"head_dim": 32}, "Qwen3": {"head_dim": 32}}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    made = getattr(transformers, f"{family}Config")(vocab_size=64, **ids, **sizes, **own.get(family, {}))
    model_class = getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")
    if family == "Mixtral" and trained == "adapters":
        pytest.skip("the experts' own weights, of which autograd keeps sums, outweigh what is kept of a token")
    targets = {"all weights": None, "adapters": "all-linear", "some adapters": list(FAMILIES[family])}[trained]
    counted = kept_by_a_layer(kit, model_class, made, compute, targets)
    facts = ModelFacts.of(made.to_dict(), 0, "")
    estimated = kept_by_layer(facts, width, adapters=targets is not None, everywhere=trained != "some adapters")
    assert estimated <= counted
    if family in NEAR:
        assert estimated > {"all weights": 0.9, "adapters": 0.6, "some adapters": 0.75}[trained] * counted


def test_no_conversation_is_longer_than_the_context():
    short = replace(FACTS, context=150)
    assert SIZE(short, GPU).conversations == 32 * 150 * 200
    assert SIZE(short, GPU).cache == 32 * 256 * 16 * 2
    assert SIZE(replace(FACTS, context=0), GPU).conversations == 32 * 400 * 200


def test_second_copies_of_the_weights_are_counted(monkeypatch):
    monkeypatch.setattr(step_size, "available", lambda: True)
    assert SIZE(FACTS, RAM).copies == 2000  # laid out for the CPU
    assert SIZE(replace(FACTS, parameters=500_000_000), RAM).copies == 0  # a large model does without
    assert replace(SIZE, half=False)(FACTS, RAM).copies == 0
    assert replace(SIZE, reference=True)(FACTS, GPU).copies == 2000
    assert replace(SIZE, reference=True, half=False)(FACTS, GPU).copies == 4000
    adapted = replace(SIZE, adapters=True, reference=True)  # the reference is the model without its adapters
    assert adapted(FACTS, GPU).copies == 2000  # loaded in float32, computed in bfloat16
    assert adapted(replace(FACTS, dtype="bfloat16"), GPU).copies == 0
    assert adapted(FACTS, RAM).copies == 4000
    monkeypatch.setattr(step_size, "available", lambda: False)
    assert SIZE(FACTS, RAM).copies == 0


def test_the_size_of_a_step_is_that_of_the_settings_and_the_scenarios():
    config = TrainingConfig.from_profile("balanced", max_concurrent=10, beta=0.1)
    environment = ConversationEnvironment(
        [{"user_responses": ["x" * 40, "y" * 80, "never said"]}, {"user_responses": ["z" * 40]}], max_turns=2
    )
    size = StepSize.of(config, agent(system_prompt="s" * 60), environment)
    # Openings of two messages, of 15 and 10 tokens; one and a half turns of 20 tokens each, and half a second line of
    # 20; around each of these two replies and lines 5.
    assert (size.opening, size.rest) == (25 + 2 * 5, 40 + 2 * 5)
    assert (size.in_flight, size.per_pass, size.per_step, size.group) == (10, 8, 16, 8)
    assert (size.half, size.reference, size.adapters) == (True, True, False)
    for targets, everywhere in ((None, True), (["q_proj", "v_proj"], False)):
        some = TrainingConfig.from_profile("balanced", lora={"target_modules": targets})
        adapted = StepSize.of(some, agent(), environment)
        assert (adapted.adapters, adapted.everywhere) == (True, everywhere)


def test_a_conversation_without_a_script_takes_half_its_turns():
    class Own(Environment):
        max_turns = 6

        async def step(self, state, action):
            return state, None, 0.0, True

    size = StepSize.of(TrainingConfig.from_profile("balanced"), agent(system_prompt="s" * 60), Own())
    assert (size.opening, size.rest) == (15 + 2 * 5, 3 * 20 + 5 * 5)


def test_what_scenarios_tell_the_agent_is_counted():
    """Mutation: the system prompt alone."""
    scenarios = [{"user_responses": ["Hi!!"], "agent_context": "c" * 80}, {"user_responses": ["Hi!!"]}]
    config, environment = TrainingConfig.from_profile("balanced"), ConversationEnvironment(scenarios, max_turns=1)
    sizes = [StepSize.of(config, agent(system_prompt=told), environment).opening for told in (None, "s" * 60)]
    # A line of 1 token in its frame; a system message in half of the conversations, or in all of them.
    assert sizes == [int(6 + (20 + 5) / 2), 6 + (15 + 5) + 10]


def test_a_frame_is_as_many_tokens_as_the_template_of_chat_ml_puts_around_a_message():
    tokenizer = load_model("tiny", device="cpu").tokenizer
    messages = [{"role": role, "content": ""} for role in ("system", "user", "assistant", "user")]
    assert len(tokenizer.apply_chat_template(messages)["input_ids"]) == 4 * step_size._FRAME


def test_records_are_read_and_not_played():
    def said(text):
        return ({"role": "assistant", "content": text},)

    config = TrainingConfig.from_profile("balanced", algorithm="dpo", data_file="pairs.jsonl")
    asked = ({"role": "user", "content": "q" * 80},)
    records = [Record("line 1", asked, (said("a" * 40), said("b" * 120)))]
    size = StepSize.of(config, agent(), ConversationEnvironment([{"user_responses": ["Hi!"]}]), records)
    assert (size.opening, size.rest, size.in_flight, size.group) == (20 + 5, 20 + 5, 0, 2)
    assert (size.per_pass, size.per_step) == (8, 32)
    assert size(FACTS, GPU).cache == 0


def test_what_a_prompt_tells_of_tools_and_recorded_calls_are_counted():
    """Mutation: an agent is told of a hundred tools for nothing, and a record of calls is empty."""

    def price(of):
        """The price of a thing."""

    (tool,) = as_tools([price])
    told = len(FORMATS["json"].instructions([tool.definition()]))
    config = TrainingConfig.from_profile("balanced", algorithm="sft", data_file="talks.jsonl")
    calls = [{"name": "price", "arguments": {"of": "tea"}}]  # 47 characters of JSON
    answer = ({"role": "assistant", "content": "a" * 5, "tool_calls": calls},)
    records = [Record("line 1", ({"role": "user", "content": "q" * 80},), (answer,))]
    size = StepSize.of(config, agent(), ConversationEnvironment([{"user_responses": ["Hi!"]}]), records, [tool])
    assert (size.opening, size.rest) == (20 + 5 + told // 4, (5 + 47) // 4 + 5)


def test_the_most_that_a_conversation_can_have_sampled_counts_the_turns_with_calls():
    """Of dr_grpo the divisor. Three replies of 40 tokens; before each two calls, and one that is refused."""
    tools = ToolAgent(agent(), limits=ToolLimits(calls_per_turn=2))
    assert (MultiTurnAgent(agent()).most_tokens(3), tools.most_tokens(3)) == (3 * 40, 3 * (2 + 1 + 1) * 40)


@pytest.mark.parametrize("initialized", [False, True])
@pytest.mark.parametrize("setting", ["batch_size", "gradient_accumulation_steps"])
async def test_a_step_that_does_not_fit_is_refused_before_it_is_begun(setting, initialized):
    one = MultiTurnAgent(agent())
    if initialized:
        await one.initialize()
    environment = ConversationEnvironment([{"user_responses": ["Hi!"]}])
    words = (
        r"tiny fits here, but one step of training does not: it needs about .* \(weights .*a step .*Lower batch_size"
    )
    with pytest.raises(ModelError, match=words):
        await train(one, environment, config_overrides={setting: 10**9}, quiet=True)
    assert one.initialized is initialized
