import pytest

from stateset_agents.core.secrets import is_secret, is_variable


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY",
        "API_KEYS",
        "OPENAI_API_KEY_2",
        "HF_TOKEN",
        "auth-token",
        "authToken",
        "apiKey",
        "openai.apikey",
        "password",
        "DB_PASS",
        "PGPASSWORD_FILE_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "SECRET_KEY_BASE",
        "BASIC_AUTH",
        "GITHUB_PAT",
    ],
)
def test_names_of_secrets_are_known(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM",
        "max_new_tokens",
        "key",
        "keys",
        "keyboard",
        "pass",
        "tokens_per_second",
        "pass_at_k",
        "passes",
        "SSH_AUTH_SOCK",
        "author",
        "PATH",
        "__1__",
    ],
)
def test_names_that_only_look_like_secrets_are_not(name):
    assert not is_secret(name)


def test_a_variable_has_capitals_and_an_api_key_does_not():
    assert all(is_variable(name) for name in ("JUDGE_API_KEY", "_K", "A1"))
    assert not any(is_variable(name) for name in ("sk-abc", "hf_abc", "judge_key", "", "A-B", "1A", "A\n", None, 3))
