# Ray on the image of `cog build` or of local.Dockerfile, for docs/cluster.md:
# `docker build -f docker/cluster.Dockerfile --build-arg BASE=hermes -t hermes-ray .`
ARG BASE=hermes
FROM ${BASE}
COPY requirements/cluster.txt /tmp/cluster.txt
RUN python -m pip install --no-cache-dir --no-deps --only-binary :all: -r /tmp/cluster.txt
# The scripts of the Python in the GPU image are not on PATH.
RUN command -v ray || ln -s "$(python -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/ray" /usr/local/bin/ray
# Ray's processes find hermes in /src.
ENV PYTHONPATH=/src RAY_AUTH_MODE=token RAY_SERVE_USE_GRPC_BY_DEFAULT=1 RAY_USAGE_STATS_ENABLED=0
ENTRYPOINT []
