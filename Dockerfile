# The server alone: no Burn, no Python, no shell. Build and run:
#   docker build -t cardinal .
#   docker run --rm -p 8080:8080 -v "$PWD/models:/models:ro" cardinal --model /models/resnest50d.safetensors
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist -p cardinal-cli --no-default-features --features serve

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/dist/cardinal /usr/local/bin/cardinal
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["/usr/local/bin/cardinal", "serve", "--probe", "127.0.0.1:8080"]
# In a container the address of the outside is the container's own; what may reach it is the host's to say.
ENTRYPOINT ["/usr/local/bin/cardinal", "serve", "--host", "0.0.0.0"]
