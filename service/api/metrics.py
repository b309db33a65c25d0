"""GET /metrics: the counts of all processes (docs/operate/metrics.md)."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.errors import ErrorRoute
from service.metrics.collector import Metrics


def create_metrics_route(find_metrics: Callable[[], Metrics], **options: Any) -> APIRouter:
    """Create GET /metrics; ``options`` are those of a router."""
    router = APIRouter(route_class=ErrorRoute, **options)

    @router.get(
        "/metrics",
        tags=["metrics"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def scrape(request: Request) -> Response:
        content, content_type = find_metrics().expose(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    return router
