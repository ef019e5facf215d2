# faceswap in a container. TORCH chooses the build of PyTorch, as uv's --torch-backend does:
#
#     docker build --tag faceswap .
#     docker build --tag faceswap:cuda --build-arg TORCH=cu130 .
#
# Run it in the folder that holds data/ and models/; see docs/howto/gpu.md.
FROM python:3.13-slim

ARG TORCH=cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY faceswap faceswap
RUN python -m pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --torch-backend "${TORCH}" .

# The container runs as any user: /tmp is home, /config holds the certificate that signs outputs.
# NVIDIA's runtime provides these capabilities of the driver; "video" is the hardware encoder.
ENV HOME=/tmp \
    XDG_CONFIG_HOME=/config \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
RUN mkdir /config && chmod 1777 /config
WORKDIR /work
ENTRYPOINT ["faceswap"]
CMD ["--help"]
