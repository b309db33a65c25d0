"""The gRPC server: the Open Inference Protocol, the health service and reflection."""

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service import __version__
from service.api.open_inference.infer import find_model, infer
from service.api.open_inference.routes import EXTENSIONS, describe_model
from service.errors import AddressError
from service.grpc import open_inference_pb2 as messages
from service.grpc.calls import SERVICE, Calls, KeyInterceptor, caller_of
from service.grpc.messages import read_message, write_message, write_tensor
from service.inference.admission import Permit
from service.inference.registry import Model
from service.state import ServiceState

log = structlog.get_logger(__name__)


class OpenInference:
    """The methods of the service. Each takes its message and the `grpc.aio.ServicerContext` of its call."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._calls = Calls(state)

    async def server_live(self, _: messages.ServerLiveRequest, context: Any) -> Any:
        """Whether the process answers and no model hangs."""

        async def live() -> messages.ServerLiveResponse:
            return messages.ServerLiveResponse(live=not self._state.engine.stuck)

        return await self._calls.unary("ServerLive", live, context)

    async def server_ready(self, _: messages.ServerReadyRequest, context: Any) -> Any:
        """Whether all models can answer."""

        async def ready() -> messages.ServerReadyResponse:
            return messages.ServerReadyResponse(ready=is_ready(self._state))

        return await self._calls.unary("ServerReady", ready, context)

    async def model_ready(self, message: messages.ModelReadyRequest, context: Any) -> Any:
        """Whether a model can answer."""

        async def ready() -> messages.ModelReadyResponse:
            return messages.ModelReadyResponse(ready=self._state.engine.serves(self._find(message)))

        return await self._calls.unary("ModelReady", ready, context)

    async def server_metadata(self, _: messages.ServerMetadataRequest, context: Any) -> Any:
        """The service and its extensions."""

        async def describe() -> messages.ServerMetadataResponse:
            return messages.ServerMetadataResponse(name="stn-serve", version=__version__, extensions=EXTENSIONS[:2])

        return await self._calls.unary("ServerMetadata", describe, context)

    async def model_metadata(self, message: messages.ModelMetadataRequest, context: Any) -> Any:
        """Inputs and outputs of a model."""

        async def describe() -> messages.ModelMetadataResponse:
            model = self._find(message)
            versions = sorted(other.version for other in self._state.engine.models if other.name == model.name)
            described = describe_model(model, versions)
            return messages.ModelMetadataResponse(
                name=described.name,
                versions=described.versions,
                platform=described.platform,
                inputs=map(write_tensor, described.inputs),
                outputs=map(write_tensor, described.outputs),
            )

        return await self._calls.unary("ModelMetadata", describe, context)

    async def model_infer(self, message: messages.ModelInferRequest, context: Any) -> Any:
        """The outputs of a model for tensors or picture files."""

        async def work() -> messages.ModelInferResponse:
            return await self._infer(message, context.time_remaining())

        return await self._calls.unary("ModelInfer", work, context)

    async def model_stream_infer(
        self, requests: AsyncIterator[messages.ModelInferRequest], context: Any
    ) -> AsyncIterator[messages.ModelStreamInferResponse]:
        """The same for requests one after the other. An error is a message of the stream, which goes on."""
        caller = caller_of(context)
        async for message in requests:

            async def work(message: messages.ModelInferRequest = message) -> messages.ModelInferResponse:
                return await self._infer(message, context.time_remaining())

            _, answer, error = await self._calls.outcome("ModelStreamInfer", work, caller)
            yield messages.ModelStreamInferResponse(
                error_message="" if error is None else str(error),
                infer_response=messages.ModelInferResponse(id=message.id) if answer is None else answer,
            )

    async def _infer(
        self, message: messages.ModelInferRequest, remaining_s: float | None
    ) -> messages.ModelInferResponse:
        """Answer ``message`` within the time of the service, and within ``remaining_s`` if there is a deadline."""
        arrived = perf_counter()
        settings = self._state.settings
        model = find_model(self._state.engine, message.model_name, message.model_version or None)
        timeout_s = settings.timeout_ms / 1000
        deadline = arrived + (timeout_s if remaining_s is None else min(timeout_s, remaining_s))
        with Permit(model.limiter) as permit:
            permit.take(size=message.ByteSize())
            content, json_length = read_message(message, settings.max_json_bytes)
            return write_message(
                model, await infer(self._state, model, permit, content, json_length, arrived, deadline)
            )

    def _find(self, message: messages.ModelReadyRequest | messages.ModelMetadataRequest) -> Model:
        return find_model(self._state.engine, message.name, message.version or None)

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method, as gRPC registers them."""
        unary = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
        }
        found: dict[str, Any] = {
            method: grpc.unary_unary_rpc_method_handler(
                answer,
                getattr(messages, f"{method}Request").FromString,
                getattr(messages, f"{method}Response").SerializeToString,
            )
            for method, answer in unary.items()
        }
        found["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self.model_stream_infer,
            messages.ModelInferRequest.FromString,
            messages.ModelStreamInferResponse.SerializeToString,
        )
        return found


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """The health service of gRPC, for probes. Only `Check` is offered."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service but {SERVICE}")
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if is_ready(self._state) else status.NOT_SERVING)

    async def List(self, _: Any, context: Any) -> None:  # noqa: N802 - gRPC's name
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "List is not offered; call Check")

    async def Watch(self, _: Any, context: Any) -> None:  # noqa: N802 - gRPC's name
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Watch is not offered; call Check from time to time")


class GrpcServer:
    """Answers on its port until it is stopped."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        settings = state.settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_batch_bytes + settings.max_json_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", int(settings.workers > 1)),
            ],
            interceptors=(KeyInterceptor(state),),
            maximum_concurrent_rpcs=settings.max_queue,
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, OpenInference(state).handlers())
        self._server.add_generic_rpc_handlers((handler,))
        health_pb2_grpc.add_HealthServicer_to_server(Health(state), self._server)
        services = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, self._server)

    async def start(self) -> None:
        """Begin to answer.

        Raises:
            AddressError: the port cannot be used.
        """
        host, port = self._state.settings.host, self._state.settings.grpc_port
        place = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{place}:{port}")
        except RuntimeError as error:
            raise AddressError(f"cannot listen on {place}:{port} for gRPC; choose another --grpc-port") from error
        await self._server.start()
        log.info("grpc_listens", address=f"{place}:{bound}")

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, and give those in flight ``grace_s`` to end."""
        await self._server.stop(grace_s)


def is_ready(state: ServiceState) -> bool:
    """Whether all models of all workers can answer."""
    return state.engine.ready and state.workers_ready()
