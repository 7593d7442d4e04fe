# What `cog build -f cog.local.yaml` builds, for those without Cog: docker build -f docker/local.Dockerfile -t hermes-local .
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# as in cog.local.yaml
ENV PIP_NO_DEPS=1 \
    HERMES_PROFILE=local \
    VLLM_LOGGING_LEVEL=ERROR \
    HF_HUB_DISABLE_TELEMETRY=1 \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=131072 \
    TOKIO_WORKER_THREADS=1

RUN apt-get update -qq \
 && apt-get install -qqy --no-install-recommends libnuma1 tini >/dev/null \
 && rm -rf /var/lib/apt/lists/*

# a layer of its own, until the lock changes
COPY requirements/local.txt requirements/torch.txt /tmp/
RUN python -m pip install -q --no-deps -r /tmp/local.txt \
 && python -m pip install -q --no-deps --extra-index-url https://download.pytorch.org/whl/cpu -r /tmp/torch.txt

# what Cog's build adds: the predictor's name, its slots, and the OpenAPI document that coglet checks inputs with
ENV COG_PREDICT_TYPE_STUB=predict.py:Predictor COG_MAX_CONCURRENCY=32
WORKDIR /src
COPY . /src
RUN python -c "from pathlib import Path; from hermes.devserver import PredictorSource; PredictorSource(Path('predict.py')).write_openapi()"
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=5m CMD ["python", "hermes/serving/ready.py"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["python", "-m", "cog.server.http"]
