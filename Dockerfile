# The image of docker-compose.yml: building shards and training, on GPUs or on the CPU.
# No CUDA image is needed: the wheels of torch and DALI bring their CUDA libraries, and the driver comes from the
# host through the NVIDIA container toolkit.
FROM python:3.12-slim

# torch.compile (recipe `modern`) has a C++ compiler build what launches its kernels; the slim image has none.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# Dependencies are a layer of their own, several GB, which a change of our code does not rebuild.
WORKDIR /opt/alexnet-dali
COPY pyproject.toml README.md LICENSE ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > /tmp/dependencies.txt && pip install --requirement /tmp/dependencies.txt

COPY pipeline pipeline
COPY model model
COPY tools tools
RUN pip install --no-deps .

# "video" brings libnvcuvid.so, through which nvJPEG reaches the hardware JPEG decoder of A100, H100 and later; the
# toolkit's default is utility,compute. "utility" brings nvidia-smi, which `alexnet-prep doctor` asks.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video

# Any user may run it, so that shards and runs belong to whoever starts the container. One without an entry in
# /etc/passwd has no name, which torch before 2.13 wants for its compile cache, and no home, which Triton's goes to.
RUN useradd --uid 1000 --create-home alexnet && chmod 1777 /home/alexnet
ENV USER=alexnet \
    HOME=/home/alexnet
USER alexnet
WORKDIR /home/alexnet

CMD ["alexnet-prep", "doctor"]
