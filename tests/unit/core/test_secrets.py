import pytest

from stateset_agents.core.secrets import is_secret


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
