"""What schemathesis sends where the OpenAPI document only says that the bytes are a picture."""

import schemathesis
from hypothesis import strategies

from app.routes.predict import ONE_BODY
from tests.fuzz.seeds import pictures

PICTURES = strategies.sampled_from(list(pictures().values()))

schemathesis.openapi.format("binary", PICTURES)
for media_type in ONE_BODY["content"]:
    if media_type.startswith("image/"):
        schemathesis.openapi.media_type(media_type, PICTURES)
