# Build: exactly the locked dependencies, and the package, in a virtual environment that has no installer of its own.
FROM python:3.13-slim-trixie AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/chutes-exporter
COPY requirements.lock requirements-build.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes \
        -r requirements-build.lock && \
    python -m pip --python /opt/chutes-exporter/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY chutes_exporter ./chutes_exporter
RUN python -m pip wheel --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir /dist . && \
    python -m pip --python /opt/chutes-exporter/bin/python install \
        --no-cache-dir --disable-pip-version-check --no-index --no-deps /dist/*.whl
# A bill of materials: every package that is installed, with its version and license. The lock file has the hashes of
# what cyclonedx-bom needs, among others: only uv accepts these as constraints.
COPY requirements-dev.lock ./
RUN sed -n '/^uv==/,/[^\\]$/p' requirements-dev.lock >uv.lock && \
    sed -n '/^cyclonedx-bom==/,/[^\\]$/p' requirements-dev.lock >sbom.lock && \
    python -m venv --without-pip /opt/sbom && \
    python -m pip --python /opt/sbom/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes -r uv.lock && \
    /opt/sbom/bin/uv pip install --python /opt/sbom/bin/python --system-certs \
        --no-cache --only-binary :all: --require-hashes --constraint requirements-dev.lock -r sbom.lock && \
    /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
        --output-file /opt/chutes-exporter/sbom.cdx.json /opt/chutes-exporter/bin/python

FROM python:3.13-slim-trixie
# The image needs no installer.
RUN rm -rf /usr/local/lib/python3.13/site-packages/pip* /usr/local/bin/pip* /usr/local/lib/python3.13/ensurepip
COPY --from=build /opt/chutes-exporter /opt/chutes-exporter
# Nothing is written: the root file system can be read-only.
ENV PATH="/opt/chutes-exporter/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2
USER 65532:65532
EXPOSE 10064
ENTRYPOINT ["chutes-exporter"]
