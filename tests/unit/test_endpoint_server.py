"""The server that other tests ask: it answers, and it misbehaves as it was told."""

import http.client
import json

import pytest

from endpoint_server import BUSY, CUT, tiny_model


def ask(server, body=None, path="/v1/chat/completions"):
    host = server.base_url.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(host, timeout=90)
    try:
        connection.request("POST", path, json.dumps(body or {"messages": []}))
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def test_it_answers_as_it_was_told_and_counts(endpoint_server):
    server = endpoint_server(lambda number, body: [f"{number}: {len(body['messages'])}", BUSY, CUT][number])
    status, body, _ = ask(server, {"messages": [{"role": "user", "content": "Hi"}]})
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "0: 1")
    status, _, headers = ask(server)
    assert (status, headers["retry-after"]) == (429, "0.01")
    with pytest.raises(http.client.IncompleteRead):
        ask(server)
    assert ask(server, path="/v1/models")[0] == 404
    assert server.count == 3


def test_the_tiny_model_is_served(endpoint_server):
    server = endpoint_server(tiny_model())
    body = {"messages": [{"role": "user", "content": "Hi"}], "seed": 1}
    (status, first, _), (_, again, _) = ask(server, body), ask(server, body)
    assert status == 200
    assert json.loads(first)["choices"][0]["message"]["content"]
    assert first == again
