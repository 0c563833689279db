# espalier with its default base model: a runtime image without a compiler, run by an unprivileged user.

# The base model, verified by its sha256.
FROM python:3-slim-bookworm AS model
COPY scripts/model.sh /build/scripts/model.sh
RUN bash /build/scripts/model.sh /models/all-MiniLM-L6-v2

# The version of rust-toolchain.toml. The file itself is not copied: rustup would download the toolchain again, with clippy and rustfmt.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
# The dependencies first: this layer stays cached until a manifest or the lock file changes. Each crate and benchmark is an empty file.
COPY Cargo.toml Cargo.lock ./
COPY crates/core/Cargo.toml crates/core/
COPY crates/tensor/Cargo.toml crates/tensor/
COPY crates/testing/Cargo.toml crates/testing/
RUN mkdir benches \
    && for crate in . crates/core crates/tensor crates/testing; do mkdir $crate/src && touch $crate/src/lib.rs; done \
    && for bench in $(sed -n '/^\[\[bench\]\]/{n;s/^name = "\(.*\)"/\1/p}' Cargo.toml); do touch "benches/$bench.rs"; done \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked \
    && rm -r benches src crates/*/src target/release/.fingerprint/espalier*
COPY . .
RUN cargo build --release --locked && cp target/release/espalier /usr/local/bin/espalier

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin espalier \
    && install -d -o espalier -g espalier -m 750 /data
COPY --from=model /models /models
COPY --from=build /usr/local/bin/espalier /usr/local/bin/espalier
# For object storage over HTTPS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# A container listens on all addresses, so the server refuses to start without an API key (ESPALIER_API_KEYS or
# ESPALIER_API_KEYS_FILE).
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
