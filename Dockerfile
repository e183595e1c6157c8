# The gateway, under 250 MB: Debian slim with Python is 130 of them. docker-compose.yml runs it hardened.

FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
RUN python -m venv --without-pip /opt/venv
COPY requirements.lock .
# Of 153 MB 80 are left: no symbols for debuggers, no tests, no sources in C.
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-compile --require-hashes -r requirements.lock \
    && find /opt/venv -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && find /opt/venv -type d -name tests -prune -exec rm -rf {} + \
    && find /opt/venv -type f \( -name '*.py[xid]' -o -name '*.px[di]' -o -name '*.[ch]' \) -delete
WORKDIR /srv/gateway
COPY app/ app/
# Byte code for what the gateway imports (22 MB) halves the time of a start; for all it would be 50.
RUN /opt/venv/bin/python -c "import pkgutil, importlib, app; [importlib.import_module(m.name) for m in pkgutil.walk_packages(app.__path__, 'app.') if 'migrations' not in m.name and not m.name.endswith('__main__')]"

FROM python:3.11-slim
# Conversations in SQLite, and what deploy/make_secrets.py makes for each service. A volume mounted
# there takes over whose it is.
RUN install -d -m 700 -o 10001 -g 10001 /data \
    && install -d -m 750 -o 10001 -g 10001 /made/gateway /made/keys /made/nginx /made/redis /made/postgres \
    # The .env of the working directory is a secret: dangling, and so absent, where none is mounted.
    && install -d /srv/gateway && ln -s /run/secrets/gateway.env /srv/gateway/.env
# A number, so that an orchestrator can check that it is not root.
USER 10001:10001
WORKDIR /srv/gateway
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/gateway .
COPY frontend/ frontend/
# Listening on every address is refused at start without GATEWAY_API_KEYS_FILE or tokens, unless
# GATEWAY_ALLOW_ANONYMOUS=true. That is left to whoever runs the image: it is safe only where the port
# is not open to strangers.
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
