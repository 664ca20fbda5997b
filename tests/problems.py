"""The shape of every failure: one helper, used for each of them.

A problem has exactly type, title, status and detail; the detail is a sentence for people; nothing of the inside leaks.
"""

import re
from typing import Any

import httpx

from app.problems import MEDIA_TYPE, TYPE_PREFIX

LEAK = re.compile(r"Traceback|, line \d|0x[0-9a-f]{6}|Error\(|site-packages|(?<![\w.])/(tmp|home|root|srv|usr|var)/")


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
    assert not LEAK.search(body["detail"]), "a traceback, an address, an exception or a path of the machine"
    return str(body["detail"])
