#!/usr/bin/env bash
# Train a customer-service agent with TRL's GRPO trainer; every setting is an environment variable.
#
#   QUICK_MODE=true ./scripts/train_trl_grpo.sh
#   MODEL_NAME=smollm2-135m-instruct NUM_EPISODES=320 LEARNING_RATE=1e-5 ./scripts/train_trl_grpo.sh
#
# A variable that is not set leaves its default to TRLGRPOConfig (with QUICK_MODE=true: to the quick defaults):
#   MODEL_NAME NUM_EPISODES BATCH_SIZE LEARNING_RATE GRADIENT_ACCUMULATION_STEPS USE_LORA LORA_R LORA_ALPHA BETA
#   NUM_GENERATIONS GRADIENT_CHECKPOINTING USE_BF16 OUTPUT_DIR WANDB_PROJECT WANDB_ENTITY WANDB_API_KEY QUICK_MODE
# PYTHON names the interpreter; without it .venv/bin/python is taken where there is one.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

if [[ -z "${PYTHON:-}" ]]; then
  if [[ -x "$here/.venv/bin/python" ]]; then
    PYTHON="$here/.venv/bin/python"
  else
    PYTHON=python3
  fi
fi

export OUTPUT_DIR="${OUTPUT_DIR:-./outputs/trl_grpo_training/$(date -u +%Y%m%d_%H%M%S)}"
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
# TRL reports its use to Hugging Face unless it is told not to.
export HF_HUB_DISABLE_TELEMETRY="${HF_HUB_DISABLE_TELEMETRY:-1}"

for name in QUICK_MODE MODEL_NAME NUM_EPISODES BATCH_SIZE LEARNING_RATE GRADIENT_ACCUMULATION_STEPS USE_LORA LORA_R \
  LORA_ALPHA BETA NUM_GENERATIONS GRADIENT_CHECKPOINTING USE_BF16 OUTPUT_DIR WANDB_PROJECT WANDB_ENTITY; do
  if [[ -n "${!name:-}" ]]; then
    export "${name?}"
    printf '%s=%s\n' "$name" "${!name}"
  fi
done

exec "$PYTHON" "$here/examples/train_with_trl_grpo.py" "$@"
