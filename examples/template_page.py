"""Show browsers a page of your own during maintenance, from a template; programs still get JSON.

    FASTAPI_MAINTENANCE_MODE=1 uvicorn examples.template_page:app
    curl -i -H 'Accept: text/html' http://127.0.0.1:8000/items/7

The template, ``pages/closed.html``, needs no template engine; its values are escaped. For Jinja2, and for all other
answers of your own, see ``responses.py``.
"""

from pathlib import Path

from fastapi import FastAPI

from fastapi_maintenance import Answer, MaintenanceModeMiddleware

PAGE = Path(__file__).parent / "pages" / "closed.html"

app = FastAPI()
app.add_middleware(
    MaintenanceModeMiddleware,
    answer=Answer(
        title="The anvil shop is closed",
        detail="We are counting anvils.",
        html=PAGE,
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    ),
)


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Answer with the page during maintenance."""
    return {"item": item_id}
