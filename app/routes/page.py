"""The page at ``/``, static files that use the API for everything, and Swagger at ``/docs``."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
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


@router.get("/docs", include_in_schema=False)
async def swagger(request: Request) -> HTMLResponse:
    """Returns Swagger, whose files ``fastapi_offline`` serves, with a script that makes it dark if the system is."""
    root = request.scope["root_path"]
    files = f"{root}/static-offline-docs"
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="FashionNet - Swagger UI",
        swagger_js_url=f"{files}/swagger-ui-bundle.js",
        swagger_css_url=f"{files}/swagger-ui.css",
        swagger_favicon_url=f"{files}/favicon.png",
    )
    script = f'<script src="{root}/page/docs.js"></script>'
    return HTMLResponse(bytes(page.body).decode().replace("</head>", f"{script}</head>"))


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
