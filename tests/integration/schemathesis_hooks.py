"""The model's name, which a schema of all servers does not have."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Ask for the model that there is, wherever a request names one."""
    if isinstance(body, dict) and isinstance(body.get("model"), str) and body["model"]:
        return {**body, "model": "agent"}
    return body
