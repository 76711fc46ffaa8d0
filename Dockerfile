# A worker on a volume. The queue's file is in /data; programs that share the volume submit into it.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --prefix=/install .

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 inferq && mkdir /data && chown inferq /data
COPY --from=build /install /usr/local
USER inferq
VOLUME /data
ENV INFERQ_STORE__DATA_DIR=/data
# SIGTERM is a graceful stop: running tasks finish or are handed back.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s CMD ["inferq", "db", "check"]
ENTRYPOINT ["inferq"]
CMD ["work"]
