# The server on a volume: queue and workers in one process. The queue's file is in /data.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --prefix=/install '.[server]'

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 inferq && mkdir /data && chown inferq /data
COPY --from=build /install /usr/local
USER inferq
VOLUME /data
# A container is reached from outside, so that it needs keys (`inferq keys create NAME`), or INFERQ_SERVER__INSECURE=true where only
# you can reach it.
ENV INFERQ_STORE__DATA_DIR=/data INFERQ_SERVER__HOST=0.0.0.0
EXPOSE 7125
# SIGTERM is a graceful stop: not ready, no new tasks, running ones finish or are handed back.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["inferq", "health", "--quiet"]
ENTRYPOINT ["inferq"]
CMD ["serve"]
