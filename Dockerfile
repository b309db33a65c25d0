# Two images without torch: `cpu`, the default, and `cuda`, which adds the CUDA 13 libraries. A third, `train`, has torch.
#   docker build --target cpu .     docker build --target cuda .     docker build --target train .

# What the two have in common.
FROM python:3.11-slim AS base
WORKDIR /app
ENV PATH=/venv/bin:$PATH STN_HOST=0.0.0.0 STN_PORT=8000 STN_MODELS=/app/models
# ONNX Runtime's wheels for Linux would tell Microsoft about the process and its models.
ENV ORT_DISABLE_TELEMETRY=1
# The python image brings pip along, which a service only offers to intruders.
RUN pip uninstall --yes --quiet pip setuptools wheel
# A number: Kubernetes cannot tell that a name is not root.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['STN_PORT'] + '/health/ready', timeout=4)"]
# No shell in between: SIGTERM reaches the service, which then answers what is under way and ends.
CMD ["python", "-m", "service"]

FROM base AS code
USER root
COPY service service
COPY export export
COPY imaging imaging
COPY models models
# A clone made under a strict umask is unreadable to anyone but its owner. A volume that is mounted at models for the first
# time takes over what is there, owner included: the service reads it, training writes to it.
RUN chmod -R a+rX . && chown -R 10001:10001 models

FROM code AS training-code
COPY training training
RUN chmod -R a+rX . && mkdir runs data && chown 10001:10001 runs data

# Dependencies alone, in a stage that only pyproject.toml and constraints.txt can change: the package is an empty one.
FROM python:3.11-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN touch README.md LICENSE && \
    python -m venv --without-pip /venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PYTHON=/venv/bin/python

FROM build AS build-cpu
RUN pip install --constraint constraints.txt '.[serve-cpu]' && pip uninstall --yes stn-serve

FROM base AS cpu
COPY --from=build-cpu /venv /venv
COPY --from=code /app /app

FROM build AS build-cuda
RUN pip install --constraint constraints.txt '.[cuda]' && pip uninstall --yes stn-serve

FROM base AS cuda
# What the NVIDIA container toolkit is to bring in; the GPUs themselves are the user's choice.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /venv /venv
COPY --from=code /app /app

FROM build AS build-train
RUN pip install --constraint constraints.txt '.[train]' && pip uninstall --yes stn-serve

FROM base AS train
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/tmp
COPY --from=build-train /venv /venv
COPY --from=training-code /app /app
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]

# The last stage is what a build without --target gives.
FROM cpu
