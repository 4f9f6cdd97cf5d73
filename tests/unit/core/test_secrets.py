import pytest

from stateset_agents.core.secrets import Redactor, is_secret, is_variable


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
        "access_tokens",
        "REFRESH_TOKENS",
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
        "eos_token",
        "pad_token",
        "padToken",
        "NO_AUTH",
        "tokens",
        "completion_tokens",
    ],
)
def test_names_that_only_look_like_secrets_are_not(name):
    assert not is_secret(name)


def test_a_variable_has_capitals_and_an_api_key_does_not():
    assert all(is_variable(name) for name in ("JUDGE_API_KEY", "_K", "A1"))
    assert not any(is_variable(name) for name in ("sk-abc", "hf_abc", "judge_key", "", "A-B", "1A", "A\n", None, 3))


def test_a_bearer_token_is_hidden_and_a_bearer_of_something_is_read():
    redact = Redactor()
    assert redact("Authorization: Bearer abcdefg8") == "Authorization: Bearer ***"
    assert redact("authorization: bearer letters-alone") == "authorization: bearer ***"
    assert redact("Bearer correcthorsebatterystaple") == "Bearer ***"
    for words in ("the bearer instruments are listed", "a bearer certificate", "Bearer authentication is used"):
        assert redact(words) == words


def test_a_signed_token_is_hidden_however_its_first_part_was_spelled():
    payload, signature = "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
    for header in ("eyJhbGciOiJIUzI1NiJ9", "eyAiYWxnIjogIkhTMjU2IiB9", "ewogICJhbGciOiAiSFMyNTYiCn0"):
        assert Redactor()(f"token={header}.{payload}.{signature}, sent") == "token=***, sent"
    assert Redactor()("eyewitness_x.reported_it.yesterday_") == "eyewitness_x.reported_it.yesterday_"
