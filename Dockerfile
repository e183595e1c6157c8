# The gateway, as small as Debian slim makes it. docker-compose.yml shows how to run it hardened.

FROM python:3.11-slim AS build
RUN python -m venv /opt/venv
COPY requirements.lock .
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

FROM python:3.11-slim
# Conversations; a volume mounted here takes over whose it is.
RUN install -d -m 700 -o 10001 -g 10001 /data
# A number, so that an orchestrator can check that it is not root.
USER 10001:10001
WORKDIR /srv/gateway
COPY --from=build /opt/venv /opt/venv
COPY app/ app/
COPY frontend/ frontend/
# Listening on every address without API keys is refused at start unless GATEWAY_ALLOW_ANONYMOUS=true.
# That is left to whoever runs the image: it is safe only where the port is not open to strangers.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Python because the image has no curl; no proxy, because this never leaves the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:%s/health' % (os.environ.get('GATEWAY_PORT') or 8000), timeout=4)"]
CMD ["python", "-m", "app"]
