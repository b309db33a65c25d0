"""The gRPC server: the Open Inference Protocol, the health service and reflection."""

from collections.abc import AsyncIterator, Iterable
from functools import partial
from time import perf_counter
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from service import __version__
from service.api.open_inference.infer import find_model, infer
from service.api.open_inference.routes import EXTENSIONS, describe_model
from service.errors import AddressError, RequestError
from service.grpc import open_inference_pb2 as messages
from service.grpc.calls import SERVICE, Calls, KeyInterceptor, abort, caller_of
from service.grpc.messages import read_message, write_message, write_tensor
from service.grpc.reading import Reader
from service.grpc.tls import Tls, read_tls
from service.inference.admission import Permit
from service.inference.registry import Model
from service.state import ServiceState

MOST_READ = 16
"""Messages of single calls that are read at a time."""
PATIENCE_S = 10
"""Seconds after which a message makes way for others, if it has not arrived."""
MOST_PROBES_READ = 4
"""Messages of the health service and reflection, which are open to strangers, that are read at a time."""
PROBE_PATIENCE_S = 0.2
"""The same for these, whose messages arrive at once since they are small."""

log = structlog.get_logger(__name__)


class OpenInference:
    """The methods of the service. Each reads from the `grpc.aio.ServicerContext` of its call what it needs."""

    def __init__(self, state: ServiceState) -> None:
        settings = state.settings
        self._state = state
        self._messages = Reader(MOST_READ, settings.request_timeout_s, PATIENCE_S)
        self._streamed = Reader(settings.max_streams, settings.keep_alive_s, PATIENCE_S)
        self._calls = Calls(state)

    async def server_live(self, _: object, context: Any) -> Any:
        """Whether the process answers and no model hangs."""

        async def live() -> messages.ServerLiveResponse:
            return messages.ServerLiveResponse(live=not self._state.engine.stuck)

        return await self._calls.unary("ServerLive", live, context)

    async def server_ready(self, _: object, context: Any) -> Any:
        """Whether all models can answer."""

        async def ready() -> messages.ServerReadyResponse:
            return messages.ServerReadyResponse(ready=is_ready(self._state))

        return await self._calls.unary("ServerReady", ready, context)

    async def model_ready(self, _: object, context: Any) -> Any:
        """Whether a model can answer."""

        async def ready() -> messages.ModelReadyResponse:
            return messages.ModelReadyResponse(ready=self._state.engine.serves(await self._find(context)))

        return await self._calls.unary("ModelReady", ready, context)

    async def server_metadata(self, _: object, context: Any) -> Any:
        """The service and its extensions."""

        async def describe() -> messages.ServerMetadataResponse:
            return messages.ServerMetadataResponse(name="stn-serve", version=__version__, extensions=EXTENSIONS[:2])

        return await self._calls.unary("ServerMetadata", describe, context)

    async def model_metadata(self, _: object, context: Any) -> Any:
        """Inputs and outputs of a model."""

        async def describe() -> messages.ModelMetadataResponse:
            model = await self._find(context)
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

    async def model_infer(self, _: object, context: Any) -> Any:
        """The outputs of a model for tensors or picture files."""

        async def work() -> messages.ModelInferResponse:
            message = await self._messages.read_only(context)
            return await self._infer(message, context.time_remaining())

        return await self._calls.unary("ModelInfer", work, context)

    async def model_stream_infer(self, _: object, context: Any) -> AsyncIterator[messages.ModelStreamInferResponse]:
        """The same for requests one after the other. An error is a message of the stream, which goes on."""
        caller = caller_of(context)
        async for message in read_all(self._streamed, context):

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
        find = partial(self._state.engine.route, same_tensors=True)
        model = find_model(find, message.model_name, message.model_version or None)
        timeout_s = settings.timeout_ms / 1000
        deadline = arrived + (timeout_s if remaining_s is None else min(timeout_s, remaining_s))
        with Permit(model.limiter) as permit:
            permit.take(size=message.ByteSize())
            content, json_length = read_message(message, settings.max_json_bytes)
            return write_message(
                model, await infer(self._state, model, permit, content, json_length, arrived, deadline)
            )

    async def _find(self, context: Any) -> Model:
        message = await self._messages.read_only(context)
        return find_model(self._state.engine.find, message.name, message.version or None)

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
            method: grpc.stream_unary_rpc_method_handler(  # which does not read by itself, and without a limit
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


class Health:
    """The health service of gRPC, for probes. Only `Check` is offered."""

    def __init__(self, state: ServiceState, probes: Reader) -> None:
        self._state = state
        self._messages = probes

    async def check(self, _: object, context: Any) -> Any:
        """Whether all models can answer."""
        try:
            request = await self._messages.read_only(context)
        except RequestError as error:
            await abort(context, error)
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service but {SERVICE}")
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if is_ready(self._state) else status.NOT_SERVING)

    async def not_offered(self, _: object, context: Any) -> None:
        """Refuse the call without reading its message."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this is not offered; call Check from time to time")

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method, as gRPC registers them."""
        refuse = grpc.stream_stream_rpc_method_handler(self.not_offered)
        check = grpc.stream_unary_rpc_method_handler(
            self.check,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        )
        return {"Check": check, "List": refuse, "Watch": refuse}


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # it has no types
    """The reflection of gRPC, whose streams end when they are idle."""

    def __init__(self, services: Iterable[str], probes: Reader) -> None:
        super().__init__(services)
        self._messages = probes

    async def ServerReflectionInfo(self, _: object, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC's name
        async for answer in super().ServerReflectionInfo(read_all(self._messages, context), context):
            yield answer


async def read_all(reader: Reader, context: Any) -> AsyncIterator[Any]:
    """Yield the messages of a stream; end it if none arrives in time."""
    try:
        while (message := await reader.read(context)) is not grpc.aio.EOF:
            yield message
    except RequestError as error:
        await abort(context, error)


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
        probes = Reader(MOST_PROBES_READ, settings.header_timeout_s, PROBE_PATIENCE_S)
        health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        health_handler = grpc.method_handlers_generic_handler(health, Health(state, probes).handlers())
        self._server.add_generic_rpc_handlers((handler, health_handler))
        reflected = Reflection((SERVICE, health, reflection.SERVICE_NAME), probes)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, self._server)

    async def start(self) -> None:
        """Begin to answer.

        Raises:
            AddressError: the port cannot be used.
            SettingsError: the certificate cannot be used.
        """
        tls = read_tls(self._state.settings)
        host, port = self._state.settings.host, self._state.settings.grpc_port
        place = f"[{host}]" if ":" in host else host
        try:
            if tls is None:
                bound = self._server.add_insecure_port(f"{place}:{port}")
            else:
                bound = self._server.add_secure_port(f"{place}:{port}", credentials(tls))
        except RuntimeError as error:
            cure = "choose another --grpc-port"
            if tls is not None:
                cure += ", or another --grpc-certificate: its key must be RSA, P-256 or P-384"
            raise AddressError(f"cannot listen on {place}:{port} for gRPC; {cure}") from error
        await self._server.start()
        log.info("grpc_listens", address=f"{place}:{bound}", tls=tls is not None)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, and give those in flight ``grace_s`` to end."""
        await self._server.stop(grace_s)


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return what gRPC encrypts with. With an authority, it refuses clients without a certificate from there."""
    authority = tls.client_authority
    return grpc.ssl_server_credentials(
        [(tls.private_key, tls.certificate)], authority, require_client_auth=authority is not None
    )


def is_ready(state: ServiceState) -> bool:
    """Whether all models of all workers can answer."""
    return state.engine.ready and state.workers_ready()
