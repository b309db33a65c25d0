# Two images without torch: `cpu`, the default, and `cuda`, which adds the CUDA 13 libraries. A third, `train`, has torch.
#   docker build --target cpu .     docker build --target cuda .     docker build --target train .
# EXTRAS are the extras of the two (pyproject.toml), and PACKAGES are others besides:
#   docker build --target cpu --build-arg EXTRAS=grpc,heif,remote,otel --build-arg PACKAGES=s3fs .

# The base of all images.
FROM python:3.11-slim AS base
WORKDIR /app
ENV PATH=/venv/bin:$PATH STN_HOST=0.0.0.0 STN_PORT=8000 STN_MODELS=/app/models
# ONNX Runtime's Linux wheels report usage to Microsoft by default.
ENV ORT_DISABLE_TELEMETRY=1
# The service does not need the python image's pip, which would only help intruders.
RUN pip uninstall --yes --quiet pip setuptools wheel
# A number, because Kubernetes cannot verify that a named user is not root.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['STN_PORT'] + '/health/ready', timeout=4)"]
# Without a shell in between, SIGTERM reaches the service, which finishes the requests in flight and exits.
CMD ["python", "-m", "service"]

FROM base AS code
USER root
COPY service service
COPY export export
COPY imaging imaging
COPY models models
# A clone made under a strict umask can be read by its owner only. A new volume that is mounted at models takes over its content and
# owner, so that the service can read it and training can write to it.
RUN chmod -R a+rX . && chown -R 10001:10001 models

FROM code AS training-code
COPY training training
RUN chmod -R a+rX . && mkdir runs data && chown 10001:10001 runs data

# Only the dependencies, with an empty package, so that this stage changes only with pyproject.toml and constraints.txt.
FROM python:3.11-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN touch README.md LICENSE && \
    python -m venv --without-pip /venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /sbom && /sbom/bin/pip install cyclonedx-bom==7.5.0
ENV PIP_PYTHON=/venv/bin/python
# Lists what an image installs, as CycloneDX; scanners of vulnerabilities read it.
ENV SBOM="/sbom/bin/cyclonedx-py environment --output-file /venv/sbom.cdx.json /venv/bin/python"

FROM build AS build-cpu
ARG EXTRAS=grpc,heif
ARG PACKAGES
RUN pip install --constraint constraints.txt ".[serve-cpu${EXTRAS:+,$EXTRAS}]" $PACKAGES && pip uninstall --yes stn-serve && $SBOM

FROM base AS cpu
COPY --from=build-cpu /venv /venv
COPY --from=code /app /app

FROM build AS build-cuda
ARG EXTRAS=grpc,heif
ARG PACKAGES
RUN pip install --constraint constraints.txt ".[cuda${EXTRAS:+,$EXTRAS}]" $PACKAGES && pip uninstall --yes stn-serve && $SBOM

FROM base AS cuda
# The driver features that the NVIDIA container toolkit mounts. The user chooses the GPUs.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /venv /venv
COPY --from=code /app /app

FROM build AS build-train
RUN pip install --constraint constraints.txt '.[train,heif]' && pip uninstall --yes stn-serve && $SBOM

FROM base AS train
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/tmp
COPY --from=build-train /venv /venv
COPY --from=training-code /app /app
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]

# A build without --target makes the last stage.
FROM cpu
