# milepost on a CPU: docker build -t milepost . && docker run --rm -v "$PWD:/data" milepost info DATASET
FROM python:3.12-slim

# torch for the CPU: the default wheel brings about 5 GB of CUDA
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    MILEPOST_CACHE=/tmp/milepost

WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY constraints/py312.txt constraints/py312.txt
COPY src src
RUN pip install "$(sed -n 's/^torch==\(.*\)/torch==\1+cpu/p' constraints/py312.txt)" \
    && pip install --constraint constraints/py312.txt . \
    && rm -rf /build/*

RUN useradd --create-home --uid 1000 milepost
USER milepost
WORKDIR /data
ENTRYPOINT ["milepost"]
CMD ["--help"]
