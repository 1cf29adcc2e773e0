# The environment is built once; a run needs no network. docs/guide/docker.md has the commands.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 bench

USER 1000:1000
WORKDIR /home/bench/takin-vc-bench
COPY --chown=1000:1000 . .

# cpu: uv takes PyTorch's builds without CUDA (3.3 GB of libraries). cuda: those of the package index.
ARG BACKEND=cpu
RUN if [ "$BACKEND" = cpu ]; then export UV_TORCH_BACKEND=cpu; fi \
    && PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 make .venv/.installed \
    && mkdir outputs

# Caches of other libraries are in /tmp, so that any user id may run it.
ENV HF_HUB_OFFLINE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    PATH=/home/bench/takin-vc-bench/.venv/bin:$PATH

CMD ["make", "bench"]
