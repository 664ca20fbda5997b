"""The page at ``/``: static files that use the API for everything."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

router = APIRouter()

FOLDER = Path(__file__).parents[1] / "static"
HEADERS = {
    # Pictures of the user's own are blobs; what the network saw comes as data URLs. All else is ours or forbidden.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    """Returns the page."""
    return FileResponse(FOLDER / "index.html", headers=HEADERS)


class PageFiles(StaticFiles):
    """Styles, scripts and samples; browsers revalidate them by their ETag."""

    def file_response(self, *arguments: object, **options: object) -> Response:
        """Returns a file with the page's headers."""
        response = super().file_response(*arguments, **options)  # type: ignore[arg-type]
        response.headers.update(HEADERS)
        return response


def mount(app: FastAPI) -> None:
    """Serves the page's files under ``/page``."""
    app.mount("/page", PageFiles(directory=FOLDER), name="page")
