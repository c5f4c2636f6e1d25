# The container image of DHP Gateway.
#
#   make image                                   builds it with docker, podman or buildah
#   docker run --rm -p 8080:8080 -p 9464:9464 dhp-gateway:VERSION sandbox      to try it: an embedded platform, no network, no settings
#   docker run --read-only -e DHP_GATEWAY_ENVIRONMENT=… -e DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID=… dhp-gateway:VERSION
#
# Every setting is an environment variable: DHP_GATEWAY_ and its path in capitals, levels joined by "__". For a first run:
#   DHP_GATEWAY_ENVIRONMENT                                  dhp-playground to begin with, dhp-production for real work; without it no address is known
#   DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID              as the DHP team gave it
#   DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET_FILE     a mounted file, e.g. /run/secrets/dhp_client_secret; it must be readable for UID 10001
#   DHP_GATEWAY_LISTEN__ADDRESS                              127.0.0.1:8080 (default), which is right for a sidecar: the pod's containers share loopback
#   DHP_GATEWAY_ADMIN__ADDRESS                               127.0.0.1:9464 (default): /livez /readyz /metrics /status
# Outside a pod callers come over the container's network, not over loopback. Then set LISTEN__ADDRESS to 0.0.0.0:8080, and say who may
# call (`callers`) or that anybody may (DHP_GATEWAY_LISTEN__ALLOW_ANONYMOUS=true): without either the gateway refuses to start.
# A settings file may be mounted instead, as /etc/dhp-gateway/gateway.yaml, where every command finds it:
# `docker run -v ./settings:/etc/dhp-gateway:ro …`; the health check reads it, too.
#
# Nothing is ever written: run it with a read-only root file system. It needs no capability and no /tmp. An audit in a file wants a volume
# at /var/log/dhp-gateway, an outbox one at /var/lib/dhp-gateway.

# BASE_IMAGE: any image with Python 3.11 or newer and the certificate authorities' roots, e.g. an in-house Debian with python3.
# Best by its digest (IMAGE@sha256:…), so that what was tried is what is built on; docs/installation.md tells how to find it.
# BUILD_IMAGE: one with the same Python at the same place, and its venv module; it stays behind. deploy/build-image.sh takes BASE_IMAGE
# for it where only that is named. With a C compiler and Python's header files in it the request path is compiled, else it is interpreted,
# which costs more processor time and changes nothing else. The start's audit event says which: "compiled".
ARG BASE_IMAGE=python:3.13-slim
ARG BUILD_IMAGE=python:3.13


FROM ${BUILD_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build
COPY requirements.lock requirements-dev.lock ./

# The environment that ships is made without pip; the pip of a second one, which stays behind here, fills it.
# Two optional build secrets reach pip on networks of hospitals, and leave no trace in any layer: a bundle of certificate authorities and a pip.conf.
# The build backend and what it needs are picked from the lock of the development tools, so that they have hashes too; pip names one that is missing.
# mypyc follows the gateway's imports, so it has to see the environment that ships.
RUN --mount=type=secret,id=pip_cert \
    --mount=type=secret,id=pip_config \
    --mount=type=cache,target=/root/.cache/pip \
    set -eu; \
    if [ -s /run/secrets/pip_cert ]; then export PIP_CERT=/run/secrets/pip_cert; fi; \
    if [ -s /run/secrets/pip_config ]; then export PIP_CONFIG_FILE=/run/secrets/pip_config; fi; \
    tools='babel|hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers'; \
    compiler=$(python3 -c 'import sysconfig; print(sysconfig.get_config_var("CC"), "-I" + sysconfig.get_path("include"))'); \
    echo '#include <Python.h>' >probe.c; \
    if $compiler -shared -fPIC -o probe.so probe.c >/dev/null 2>&1; then \
        touch compile; \
        tools="$tools|ast-serialize|librt|mypy|mypy-extensions|setuptools|types-cachetools|types-pyyaml|typing-extensions"; \
    fi; \
    awk -v "tools=^($tools)==" '/^[a-z]/ { keep = $0 ~ tools } keep' requirements-dev.lock >tools.lock; \
    python3 -m venv /build/tools; \
    /build/tools/bin/python -m pip install --require-hashes --only-binary :all: --requirement tools.lock; \
    python3 -m venv --without-pip /opt/dhp-gateway; \
    /build/tools/bin/python -m pip --python /opt/dhp-gateway/bin/python install \
        --no-compile --no-deps --require-hashes --only-binary :all: --requirement requirements.lock; \
    echo /opt/dhp-gateway/lib/python3*/site-packages >"$(echo /build/tools/lib/python3*/site-packages)/gateway.pth"

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY deploy/build_hook.py deploy/
COPY gateway gateway

# The C compiler's level; the lower, the sooner it is done, which suits tests.
ARG OPTIMISATION=2

# Only our own command stays. Byte code is made here since nobody can write it later; it is not checked against its source's time stamp, which image builders change.
RUN set -eu; \
    if [ -e compile ]; then \
        echo "Compiling the request path (some minutes)…"; \
        export DHP_GATEWAY_COMPILE=1 DHP_GATEWAY_OPTIMISATION="$OPTIMISATION"; \
    else \
        echo "No C compiler with Python's header files in the build image: the request path stays interpreted."; \
    fi; \
    /build/tools/bin/python -m pip wheel --no-index --no-build-isolation --no-deps --wheel-dir wheel .; \
    /build/tools/bin/python -m pip --python /opt/dhp-gateway/bin/python install --no-cache-dir --no-index --no-compile --no-deps wheel/*.whl; \
    find /opt/dhp-gateway/bin -type f ! -name dhp-gateway -delete; \
    /opt/dhp-gateway/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/dhp-gateway/lib


FROM ${BASE_IMAGE}

ENV PATH=/opt/dhp-gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

COPY --from=build /opt/dhp-gateway /opt/dhp-gateway

# Official Python images ship the standard library without byte code: one import of everything makes what the gateway uses, so that a start
# on a read-only file system compiles nothing. It also shows that the image can run at all, with whatever a setting may ask for.
# The folders are for volumes, where there is an audit in a file or an outbox: a new volume of Docker's takes over owner and mode.
RUN PYTHONDONTWRITEBYTECODE='' python -c 'import gateway.app.application, gateway.cli.main, gateway.app.outbox_service, gateway.app.run, gateway.sandbox; \
    import apprise, asyncpg, difflib, xml.parsers.expat, opentelemetry.exporter.otlp.proto.http.trace_exporter, redis.asyncio, sqlalchemy.ext.asyncio; \
    apprise.Apprise.instantiate("json://localhost")' && \
    install -d -o 10001 -g 10001 -m 0700 /var/log/dhp-gateway /var/lib/dhp-gateway

# Of `sandbox` only: published ports lead to all addresses of a container, and its data are examples.
ENV DHP_SANDBOX_LISTEN=0.0.0.0:8080 \
    DHP_SANDBOX_ADMIN=0.0.0.0:9464

# Both are filled in by deploy/build-image.sh.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dhp-gateway" \
      org.opencontainers.image.description="Plain FHIR requests in, OAuth 2.0 protected FHIR requests to Uzbekistan's Digital Health Platform out" \
      org.opencontainers.image.authors="DHP Gateway contributors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A number, so that Kubernetes' runAsNonRoot can check it; it needs no row in /etc/passwd.
USER 10001:10001

EXPOSE 8080 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["dhp-gateway", "healthcheck"]

ENTRYPOINT ["dhp-gateway"]
CMD ["run"]
