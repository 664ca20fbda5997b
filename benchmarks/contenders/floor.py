"""A bare Starlette app that reads the same form and answers a constant: what HTTP alone costs."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def predict(request: Request) -> JSONResponse:
    """Read the file, answer a constant."""
    form = await request.form()
    return JSONResponse({"label": "Shirt", "bytes": len(await form["file"].read())})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
