"""The shape of every failure: one helper, used for each of them.

A problem has exactly type, title, status and detail; the detail is a sentence for people; nothing of the inside leaks.
"""

from typing import Any

import httpx

from app.errors import MEDIA_TYPE, TYPE_PREFIX


def assert_problem(response: httpx.Response, status: int, slug: str) -> str:
    """Check status, media type and body; returns the detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    return assert_problem_body(response.json(), status, slug)


def assert_problem_body(body: Any, status: int, slug: str) -> str:
    """Check the body alone, as it stands in a batch; returns the detail."""
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["type"] == TYPE_PREFIX + slug
    assert body["status"] == status
    assert len(body["detail"]) > 15
    for leak in ("Traceback", ".py", "0x", "Error(", "site-packages"):
        assert leak not in body["detail"]
    return str(body["detail"])
