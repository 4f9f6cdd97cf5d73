"""Baseline: one TRL GRPOTrainer run on fixed-size synthetic work, measured per step.

The work is N prompts x G samples, each prompt exactly P tokens and each completion exactly C tokens,
so any trainer that does the same work can be compared with it. Single turn, no environment.

    python trl_baseline.py --model PATH --prompts 2 --group 8 --prompt-tokens 512 --completion-tokens 64 --steps 4

Prints one JSON object: seconds per step (wall and CPU, first step left out), tokens, peak memory.
Needs: trl==1.16.*, torch, transformers. No network is used when PATH is a local folder.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--prompts", type=int, default=2, help="distinct prompts per step")
parser.add_argument("--group", type=int, default=8, help="samples per prompt (num_generations)")
parser.add_argument("--prompt-tokens", type=int, default=512)
parser.add_argument("--completion-tokens", type=int, default=64)
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
parser.add_argument("--lora", action="store_true")
parser.add_argument("--micro-batch", type=int, default=0, help="sequences per forward pass; 0 = all at once")
args = parser.parse_args()

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

torch.set_num_threads(args.threads)
set_seed(0)
tokenizer = AutoTokenizer.from_pretrained(args.model)
rng = random.Random(0)


def prompt_of_exactly(n):
    """Plain text that tokenises to exactly n tokens."""
    words = tokenizer("the order shipment arrived late please help refund account", add_special_tokens=False).input_ids
    ids = [rng.choice(words) for _ in range(4 * n)]
    text = tokenizer.decode(ids)
    ids = tokenizer(text, add_special_tokens=False).input_ids[:n]
    return tokenizer.decode(ids)


rows = [{"prompt": prompt_of_exactly(args.prompt_tokens)} for _ in range(args.prompts * (args.steps + 1))]
batch = args.prompts * args.group
micro = args.micro_batch or batch
config = GRPOConfig(
    output_dir=tempfile.mkdtemp(),
    use_cpu=not torch.cuda.is_available(),
    bf16=False,
    fp16=False,
    gradient_checkpointing=False,
    per_device_train_batch_size=micro,
    gradient_accumulation_steps=batch // micro,
    num_generations=args.group,
    max_completion_length=args.completion_tokens,
    generation_kwargs={"min_new_tokens": args.completion_tokens},
    max_steps=args.steps,
    learning_rate=1e-5,
    beta=0.0,
    temperature=1.0,
    logging_steps=1,
    report_to=[],
    save_strategy="no",
    disable_tqdm=True,
)
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype))
peft_config = None
if args.lora:
    from peft import LoraConfig

    peft_config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


class StepClock(TrainerCallback):
    """Marks wall and CPU time at each optimizer step."""

    def __init__(self):
        self.marks = []

    def on_train_begin(self, *_, **__):
        """Take the time."""
        self.marks.append((time.perf_counter(), time.process_time()))

    on_step_end = on_train_begin


clock = StepClock()
generate_seconds = []


class TimedTrainer(GRPOTrainer):
    """Takes the time of generation."""

    def _generate(self, *a, **k):
        start = time.perf_counter()
        result = super()._generate(*a, **k)
        generate_seconds.append(time.perf_counter() - start)
        return result


def spread(completions, **_):
    """A reward that differs inside every group, so that every step has a gradient."""
    return [float(i % args.group) for i in range(len(completions))]


trainer = TimedTrainer(
    model=model,
    reward_funcs=spread,
    args=config,
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
    peft_config=peft_config,
    callbacks=[clock],
)
trainer.train()

wall = [b[0] - a[0] for a, b in zip(clock.marks, clock.marks[1:], strict=False)][1:]
cpu = [b[1] - a[1] for a, b in zip(clock.marks, clock.marks[1:], strict=False)][1:]
median = lambda xs: sorted(xs)[len(xs) // 2]  # noqa: E731
print(
    json.dumps(
        {
            "who": "trl",
            "work": vars(args) | {"model": Path(args.model).name},
            "step_wall_s": round(median(wall), 3),
            "step_cpu_s": round(median(cpu), 3),
            "generate_wall_s": round(median(generate_seconds[1:]), 3),
            "completion_tokens_per_step": batch * args.completion_tokens,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    )
)
