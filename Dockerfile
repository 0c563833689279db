# espalier with its default base model: a small runtime image without a compiler, for a user without rights.

# The base model, checked by its sha256.
FROM python:3-slim-bookworm AS model
COPY scripts/model.sh /build/scripts/model.sh
RUN bash /build/scripts/model.sh /models/all-MiniLM-L6-v2

FROM rust:1-slim-bookworm AS build
WORKDIR /build
# The dependencies by themselves first: they stay built until the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY benches benches
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src target/release/.fingerprint/espalier-*
COPY . .
RUN cargo build --release --locked && cp target/release/espalier /usr/local/bin/espalier

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin espalier \
    && install -d -o espalier -g espalier -m 750 /data
COPY --from=model /models /models
COPY --from=build /usr/local/bin/espalier /usr/local/bin/espalier

# In a container the address is open by nature: without a key (ESPALIER_API_KEYS or ESPALIER_API_KEYS_FILE) the server
# says so and does not start.
ENV ESPALIER_MODEL=/models/all-MiniLM-L6-v2 \
    ESPALIER_DATA_DIR=/data \
    ESPALIER_LISTEN=0.0.0.0:8080 \
    ESPALIER_LOG_FORMAT=json \
    HF_HOME=/data/huggingface
USER espalier
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["espalier", "health"]
ENTRYPOINT ["espalier"]
CMD ["serve"]
