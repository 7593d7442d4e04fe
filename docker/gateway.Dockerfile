# The gateway alone, without vLLM: `docker build -f docker/gateway.Dockerfile -t hermes-gateway .`
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
WORKDIR /app
COPY requirements/gateway.txt ./
RUN python -m pip install --no-cache-dir --no-deps --only-binary :all: -r gateway.txt
COPY LICENSE ./
COPY hermes ./hermes
RUN python -m compileall -q hermes
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=10m \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "hermes", "gateway", "--host", "0.0.0.0"]
CMD ["--help"]
