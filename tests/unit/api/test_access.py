import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stateset_agents.api
from serving import HI, client, service_of
from stateset_agents.api.access import Tokens, is_loopback, parse_origins, read_tokens
from stateset_agents.api.app import Door
from stateset_agents.api.page import PAGE_PATHS, page_routes
from stateset_agents.core.errors import ConfigError

BODIES = {
    ("POST", "/chat/start"): {},
    ("POST", "/chat/{conversation_id}/message"): {"message": "Hi"},
    ("POST", "/v1/chat/completions"): {"model": "agent", "messages": HI},
}


OPEN = {"/health", "/livez", "/readyz", "/", "/page/app.js", "/page/server.js", "/page/turns.js"}
OPEN |= {"/page/style.css", "/page/icon.svg"}


def routes_of(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of every route, whether the OpenAPI document tells of it or not."""
    for route in app.routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router)
        else:
            yield from ((method, route.path) for method in route.methods)


async def test_every_route_but_the_public_ones_is_closed_without_the_right_token(tmp_path: Path):
    door = Door(tokens=Tokens(["first-token", "second-token"]), public=PAGE_PATHS)
    service = service_of(tmp_path, door=door, more=(page_routes(),))
    app: Any = service.app()
    while not hasattr(app, "routes"):
        app = app._app  # through the layers
    async with client(service) as http:
        routes = sorted(routes_of(app))
        assert len(routes) == 19
        assert {path for _, path in routes} >= {*OPEN, "/openapi.json", "/chat/start"}
        for method, path in routes:
            place = path.replace("{conversation_id}", "conv_x").replace("{name}", "agent")
            for header, lets_in in [
                (None, False),
                ("Bearer wrong", False),
                ("Bearer ", False),
                ("Bearer", False),
                ("Basic first-token", False),
                ("first-token", False),
                ("Bearer first-token", True),
                ("bearer second-token", True),
            ]:
                answer = await http.request(
                    method,
                    place,
                    json=BODIES.get((method, path)),
                    headers={"Authorization": header} if header else {},
                )
                assert (answer.status_code != 401) == (lets_in or path in OPEN), (method, path, header)
                if answer.status_code == 401:
                    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["//chat/start", "/chat/../metrics", "/health/", "/HEALTH", "/livez/../metrics", "/x"])
async def test_a_path_that_is_nearly_public_is_not(tmp_path: Path, path: str):
    async with client(service_of(tmp_path, door=Door(tokens=Tokens(["secret-token"])))) as http:
        request = http.build_request("GET", "/x")
        request.url = request.url.copy_with(raw_path=path.encode())
        assert (await http.send(request)).status_code == 401


@pytest.mark.parametrize("host", ["x/livez?", "x/health", "localhost/livez#"])
async def test_a_host_header_decides_nothing_about_tokens(tmp_path: Path, host: str):
    async with client(service_of(tmp_path, door=Door(tokens=Tokens(["secret-token"])))) as http:
        assert (await http.get("/metrics", headers={"Host": host})).status_code == 401


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT"])
async def test_other_methods_are_closed_too(tmp_path: Path, method: str):
    async with client(service_of(tmp_path, door=Door(tokens=Tokens(["secret-token"])))) as http:
        assert (await http.request(method, "/metrics")).status_code == 401


async def test_the_metrics_are_open_if_the_operator_says_so(tmp_path: Path):
    door = Door(tokens=Tokens(["secret-token"]), public=["/metrics"])
    async with client(service_of(tmp_path, door=door)) as http:
        assert (await http.get("/metrics")).status_code == 200


async def test_a_conversation_belongs_to_the_token_that_began_it(tmp_path: Path):
    door = Door(tokens=Tokens(["alices-token", "bobs-token"]))
    async with client(service_of(tmp_path, door=door)) as http:
        alice, bob = ({"Authorization": f"Bearer {name}-token"} for name in ("alices", "bobs"))
        place = (await http.post("/chat/start", json={}, headers=alice)).headers["location"]
        for method, path, body in [
            ("POST", "/message", {"message": "Hi"}),
            ("GET", "/history", None),
            ("DELETE", "", None),
        ]:
            assert (await http.request(method, place + path, json=body, headers=bob)).status_code == 404
            assert (await http.request(method, place + path, json=body, headers=alice)).status_code == 200


async def test_without_tokens_a_server_on_loopback_goes_by_its_own_names_alone(tmp_path: Path):
    async with client(service_of(tmp_path, door=Door(hosts=frozenset({"localhost", "127.0.0.1"})))) as http:
        for host in ("localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:8000"):
            assert (await http.get("/health", headers={"Host": host})).status_code == 200
        for host in ("evil.test", "localhost.evil.test", "localhost:8000.evil.test", "", "127.0.0.1.nip.io:80"):
            assert (await http.get("/health", headers={"Host": host})).status_code == 421


async def test_without_tokens_a_page_of_another_site_changes_nothing(tmp_path: Path):
    async with client(service_of(tmp_path, door=Door(origins=["https://myapp.com"]))) as http:
        for origin, status in [
            ("https://myapp.com", 200),
            ("http://localhost", 200),
            ("https://evil.test", 403),
            ("https://myapp.com.evil.test", 403),
            ("https://evil-myapp.com", 403),
            ("http://localhost:9999", 403),
            ("null", 403),
        ]:
            answer = await http.post("/chat/start", json={}, headers={"Origin": origin})
            assert answer.status_code == status, origin


async def test_only_named_origins_may_read_answers_and_errors(tmp_path: Path):
    door = Door(tokens=Tokens(["secret-token"]), origins=["https://myapp.com"])
    async with client(service_of(tmp_path, door=door)) as http:
        for origin, named in [
            ("https://myapp.com", True),
            ("https://evil-myapp.com", False),
            ("https://myapp.com.evil.test", False),
            ("http://myapp.com", False),
            ("null", False),
        ]:
            for path in ("/health", "/metrics", "/nothing"):
                answer = await http.get(path, headers={"Origin": origin})
                assert answer.headers.get("access-control-allow-origin") == (origin if named else None)
                assert "access-control-allow-credentials" not in answer.headers
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            asks["Access-Control-Request-Headers"] = "authorization, content-type"
            preflight = await http.options("/chat/start", headers=asks)
            assert (preflight.status_code == 200) is named
            assert preflight.headers.get("access-control-allow-origin") == (origin if named else None)


def test_all_tokens_are_compared_in_one_place_and_in_constant_time():
    places = []
    for file in Path(stateset_agents.api.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and "compare_digest" in ast.unparse(node.func):
                places.append(file.name)
            if isinstance(node, ast.Compare) and file.name in ("access.py", "app.py", "exchange.py"):
                assert "token ==" not in ast.unparse(node)
                assert "authorization ==" not in ast.unparse(node)
    assert "access.py" in places


@pytest.mark.parametrize("token", ["", "two words", "tök", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused(token: str):
    with pytest.raises(ConfigError, match="auth token"):
        Tokens([token])


def test_a_token_file_has_one_token_a_line(tmp_path: Path):
    file = tmp_path / "tokens"
    file.write_text("# for the app\nfirst\n\n  second  \n")
    assert read_tokens(file) == ["first", "second"]
    file.write_text("# none yet\n")
    with pytest.raises(ConfigError, match="holds no token"):
        read_tokens(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tokens(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("myapp.com", "no origin"),
        ("https://myapp.com/", "no origin"),
        ("https://MyApp.com", "small letters"),
        ("https://a.com,*", "beside others"),
        ("null", "no origin"),
        (" , ", "is empty"),
        ("https://a.com:port", "no origin"),
    ],
)
def test_an_origin_that_is_none_is_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        parse_origins(text)


def test_origins_are_read_as_they_are_documented():
    assert parse_origins("https://myapp.com, https://admin.myapp.com:8443") == [
        "https://myapp.com",
        "https://admin.myapp.com:8443",
    ]


def test_only_this_machine_reaches_loopback():
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.4", "example.com", "localhost.evil.test", ""]))  # noqa: S104
