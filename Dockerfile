# Images of this project:
#   exporter  `clio-exporter`, and `clio-control-api` (docker run --entrypoint clio-control-api ...); the default
#   node      a node of the interactive cluster: the runtime's wheel, sshd, traffic
#
#   docker build -t clio-exporter .
#   docker build -t clio-node --target node .
#
# Without the internet: --build-arg BASE_IMAGE=..., an image with Python 3.10 or newer and its venv module (for `node`
# also sshd, ssh-keygen), and wheels in wheelhouse/, which are then the only ones used. docs/docker.md has the commands.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build-tools
LABEL org.clio-exporter.build-stage=true
# pip lives here and installs into /opt/clio, so that the images have none.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/clio
ENV PIP_CONFIG_FILE=/opt/pip/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The pattern lets wheelhouse/ be missing.
COPY constraints.txt wheelhouse* wheelhouse/
RUN if ls wheelhouse/*.whl >/dev/null 2>&1; then printf '[global]\nno-index = true\nfind-links = /src/wheelhouse\n'; fi \
        >"$PIP_CONFIG_FILE"

FROM build-tools AS build-exporter
# The .dockerignore decides what this is.
COPY . .
RUN /opt/pip/bin/pip --python /opt/clio/bin/python install --constraint constraints.txt ".[fast]"

FROM ${BASE_IMAGE} AS exporter
RUN install -d -o 10001 -g 10001 -m 0755 /var/lib/clio /keys && install -d -m 0755 /etc/clio
COPY --from=build-exporter /opt/clio /opt/clio
COPY deploy/healthcheck.py /usr/local/bin/clio-healthcheck
ENV PATH=/opt/clio/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/var/lib/clio \
    PYTHONDONTWRITEBYTECODE=1 \
    CLIO_HEALTH_URL=http://127.0.0.1:9777/-/healthy
# Nothing is written but the control API's state (/var/lib/clio); any other user will do too.
USER 10001:10001
WORKDIR /var/lib/clio
# 9777 metrics and 9778 answers of runtimes (exporter); 5000 HTTP and 9788 answers of runtimes (control API).
EXPOSE 9777 9778 5000 9788
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python3", "-I", "/usr/local/bin/clio-healthcheck"]
ENTRYPOINT ["clio-exporter"]
LABEL org.opencontainers.image.title="clio-exporter" \
      org.opencontainers.image.description="Prometheus exporter and control API for IOWarp CLIO clusters" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="BSD-3-Clause"

FROM build-tools AS build-node
RUN /opt/pip/bin/pip --python /opt/clio/bin/python install --constraint wheelhouse/constraints.txt iowarp-core

FROM ${BASE_IMAGE} AS node
RUN command -v sshd >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends openssh-server && rm -rf /var/lib/apt/lists/*; }
# Host keys of the package would be the same in every container; clio-keys makes them. A new volume gets owner and mode of
# the directory that it is mounted on first: /nodes/N are the volumes of the nodes, as clio-keys sees them.
RUN rm -f /etc/ssh/ssh_host_* \
    && groupadd --gid 10001 clio && useradd --uid 10001 --gid 10001 --home-dir /home/clio --create-home --shell /bin/bash clio \
    && install -d -o clio -g clio -m 0755 /keys /etc/clio && install -d -o clio -g clio -m 0750 /var/lib/clio \
    && install -d -o clio -g clio -m 0700 /nodes/1 /nodes/2 /nodes/3 /nodes/4
COPY --from=build-node /opt/clio /opt/clio
COPY deploy/node/entrypoint.sh /usr/local/bin/clio-node
COPY deploy/node/keys.sh /usr/local/bin/clio-keys
COPY lab/clio_lab/traffic.py /usr/local/bin/clio-traffic
COPY deploy/node/healthcheck.py /usr/local/bin/clio-node-healthcheck
ENV PATH=/opt/clio/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CLIO_SERVER_CONF=/etc/clio/clio.yaml \
    USER=clio HOME=/home/clio
USER 10001:10001
WORKDIR /home/clio
# 2222 sshd; 9413 other nodes, 9416 clients of the runtime.
EXPOSE 2222 9413 9416
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["python3", "-I", "/usr/local/bin/clio-node-healthcheck"]
ENTRYPOINT ["clio-node"]
LABEL org.opencontainers.image.title="clio-node" \
      org.opencontainers.image.description="A node of an IOWarp CLIO cluster to try things on: runtime and sshd" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="BSD-3-Clause"

# What is built when no target is named.
FROM exporter
