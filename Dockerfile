# syntax=docker/dockerfile:1
# One image for all processes: `docker build --tag sark-pdp .`. The steps are in charts/image.sh, where a test performs them
# too. Pin both images by digest where builds must be repeatable: --build-arg PYTHON=python:3.13-slim-bookworm@sha256:…
ARG PYTHON=python:3.13-slim-bookworm
ARG RUST=rust:1.95-slim-bookworm

FROM ${RUST} AS wheel
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip python3-venv
WORKDIR /source
COPY . .
RUN charts/image.sh wheel python3 /wheels

FROM ${PYTHON} AS environment
WORKDIR /source
COPY requirements.lock ./
COPY charts/image.sh charts/sbom.py charts/
COPY front/Cargo.lock front/
COPY --from=wheel /wheels /wheels
RUN charts/image.sh install python3 /wheels /opt/sark-pdp
RUN charts/image.sh warm /opt/sark-pdp

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="SARK PDP" \
      org.opencontainers.image.description="A policy decision point that runs beside each workload" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Belongs to root, so no process of the image can change it; the bill of materials is in share/.
COPY --from=environment /opt/sark-pdp /opt/sark-pdp
RUN install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/sark-pdp
# XDG_STATE_HOME makes /var/lib/sark-pdp the state folder, which needs a volume where the root is read-only.
ENV PATH=/opt/sark-pdp/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_STATE_HOME=/var/lib
USER 65532:65532
WORKDIR /
EXPOSE 9001 9002 9004
STOPSIGNAL SIGTERM
# Of `serve`; others have --health-cmd='sark-pdp ready --address 127.0.0.1:PORT'. Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["sark-pdp", "ready"]
ENTRYPOINT ["sark-pdp"]
CMD ["serve"]
