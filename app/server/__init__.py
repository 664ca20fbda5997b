"""What runs the application: processes, and the little that is needed below ASGI.

Nothing imports this package but ``app.__main__``: the service also runs under plain
``uvicorn --factory app.main:create_app``.
"""

from app.server.processes import serve

__all__ = ["serve"]
