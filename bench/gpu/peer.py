"""PyTorch's side of compare.ts: the work of cases.ts as a user of PyTorch would write it, told what to do in lines of
JSON and answering in lines of JSON (protocol.ts). bfloat16 throughout, float32 weights and AdamW in training."""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Whatever libraries print goes to standard error.


def rms(x, scale):
    return F.rms_norm(x, x.shape[-1:], scale.to(x.dtype), 1e-6)


def rotate(x, cos, sin):
    """x [B, S, H, D], cos and sin [1, S, 1, D/2]"""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attend(q, k, v):
    """[B, S, H, D], [B, T, H, D] -> [B, S, H D]"""
    y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return y.transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, width, heads, hidden, has_text):
        super().__init__()
        self.heads, size = heads, width // heads
        self.table = nn.Parameter(0.1 * torch.randn(6 * width))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scales = nn.Parameter(0.1 * torch.randn(4 if has_text else 2, size))
        if has_text:
            self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
            self.text_out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, modulation, cos, sin, text):
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).chunk(6, -1)
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale1) + shift1
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(h).chunk(3, -1))
        q, k = rotate(rms(q, self.scales[0]), cos, sin), rotate(rms(k, self.scales[1]), cos, sin)
        x = x + self.out(attend(q.to(v.dtype), k.to(v.dtype), v)) * gate1
        if text is not None:
            h = F.layer_norm(x, x.shape[-1:], eps=1e-6)
            q = self.query(h).unflatten(-1, (self.heads, -1))
            k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.key_value(text).chunk(2, -1))
            q, k = rms(q, self.scales[2]), rms(k, self.scales[3])
            x = x + self.text_out(attend(q.to(v.dtype), k.to(v.dtype), v))
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2
        return x + self.down(F.gelu(self.up(h), approximate="tanh")) * gate2


class Transformer(nn.Module):
    def __init__(self, case):
        super().__init__()
        width, has_text = case["width"], case["text"] > 0
        self.first, self.last = nn.Linear(case["values"], width), nn.Linear(width, case["values"])
        self.blocks = nn.ModuleList(
            Block(width, case["heads"], case["hidden"], has_text) for _ in range(case["layers"])
        )

    def forward(self, x, modulation, cos, sin, text):
        x = self.first(x)
        for block in self.blocks:
            x = block(x, modulation, cos, sin, text)
        return self.last(F.layer_norm(x, x.shape[-1:], eps=1e-6))


def last_channels(x):
    """[B, C, T, H, W] as [B, T, H, W, C], which is how channels_last_3d lies in memory."""
    return x.permute(0, 2, 3, 4, 1)


def first_channels(x):
    return x.permute(0, 4, 1, 2, 3)


def merge(x, t, h, w):
    """[B, T, H, W, C] -> [B, T/t, H/h, W/w, t h w C]"""
    b, frames, rows, columns, c = x.shape
    x = x.reshape(b, frames // t, t, rows // h, h, columns // w, w, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def split(x, t, h, w):
    b, frames, rows, columns, c = x.shape
    x = x.reshape(b, frames, rows, columns, t, h, w, c // (t * h * w))
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, frames * t, rows * h, columns * w, -1)


class ResidualBlock(nn.Module):
    """Tensors are [B, T, H, W, C] between layers; convolutions see the same memory as channels_last_3d."""

    def __init__(self, channels):
        super().__init__()
        self.scales = nn.Parameter(torch.ones(2, channels))
        self.space = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.time = nn.Conv3d(channels, channels, (3, 1, 1))

    def forward(self, x):
        h = self.space(first_channels(F.silu(rms(x, self.scales[0]))))
        h = first_channels(F.silu(rms(last_channels(h), self.scales[1])))
        return x + last_channels(self.time(F.pad(h, (0, 0, 0, 0, 2, 0))))


class Autoencoder(nn.Module):
    def __init__(self, case):
        super().__init__()
        channels, latent = case["channels"], case["latentChannels"]
        fine, _, coarse = channels

        def blocks(level, counts):
            return nn.Sequential(*(ResidualBlock(channels[level]) for _ in range(counts[level])))

        self.patches, self.moments = nn.Linear(12, fine), nn.Linear(coarse, 2 * latent)
        self.encoder = nn.ModuleList(blocks(level, case["encoderBlocks"]) for level in range(3))
        self.down = nn.ModuleList(nn.Linear(8 * channels[i], channels[i + 1]) for i in range(2))
        self.latent, self.pixels = nn.Linear(latent, coarse), nn.Conv3d(fine, 12, (1, 3, 3), padding=(0, 1, 1))
        self.decoder = nn.ModuleList(blocks(level, case["decoderBlocks"]) for level in (2, 1, 0))
        self.up = nn.ModuleList(nn.Linear(channels[i], 8 * channels[i - 1]) for i in (2, 1))

    def forward(self, video, noise):
        h = self.patches(merge(video, 1, 2, 2))
        for level, blocks in enumerate(self.encoder):
            h = blocks(h)
            if level < 2:
                h = self.down[level](merge(F.pad(h, (0, 0, 0, 0, 0, 0, 1, 0)), 2, 2, 2))
        mean, log_variance = self.moments(h).float().chunk(2, -1)
        log_variance = log_variance.clamp(-20, 10)
        h = self.latent(mean + (0.5 * log_variance).exp() * noise)
        for level, blocks in enumerate(self.decoder):
            h = blocks(h)
            if level < 2:
                h = split(self.up[level](h), 2, 2, 2)[:, 1:]
        patches = last_channels(self.pixels(first_channels(h)))
        return split(patches, 1, 2, 2).float(), mean, log_variance


def charbonnier(x):
    return (x.square() + 1e-6).sqrt().mean()


def autoencoder_loss(model, video, noise):
    reconstruction, mean, log_variance = model(video, noise)
    error = reconstruction - video
    gradient = sum(charbonnier(error.diff(dim=axis)) for axis in (1, 2, 3))
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).mean()
    return charbonnier(error) + 0.1 * gradient + 5e-4 * divergence


def inputs_of(case):
    draw = torch.randn
    if case["kind"] == "autoencoder":
        clips, frames, side = case["clips"], case["frames"], case["side"]
        latents = (clips, 1 + (frames - 1) // 4, side // 8, side // 8, case["latentChannels"])
        return [draw(clips, frames, side, side, 3), draw(*latents)]
    width, tokens = case["width"], case["tokens"]
    angles = draw(1, tokens, 1, width // case["heads"] // 2)
    text = draw(1, case["text"], width) if case["text"] > 0 else None
    return [draw(1, tokens, case["values"]), draw(1, 1, 6 * width), angles.cos(), angles.sin(), text]


def choose_attention(name):
    if name == "cudnn":
        cuda = torch.backends.cuda
        for enable in (cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_math_sdp):
            enable(False)


class Prepared:
    def __init__(self, case, settings):
        self.device, self.mode = settings["device"], settings["mode"]
        choose_attention(settings["attention"])
        torch.manual_seed(1)
        torch.set_float32_matmul_precision("high")
        torch.set_default_device(self.device)
        model = (Autoencoder if case["kind"] == "autoencoder" else Transformer)(case)
        if case["kind"] == "autoencoder":
            model = model.to(memory_format=torch.channels_last_3d)
        inputs = inputs_of(case)
        self.parameters = sum(p.numel() for p in model.parameters())
        if self.mode == "blocks":
            for block in model.blocks:
                block.compile()
        self.queue = self.step(case, model, inputs) if case["work"] == "step" else self.forward(model, inputs)
        start = time.perf_counter()
        for _ in range(3):
            self.queue()
        if self.mode == "graphs":
            self.record()
        self.wait()
        self.compile_seconds = time.perf_counter() - start

    def compiled(self, function):
        return torch.compile(function) if self.mode in ("compile", "graphs") else function

    def forward(self, model, inputs):
        model.to(torch.bfloat16)
        inputs = [one if one is None else one.to(torch.bfloat16) for one in inputs]
        run = self.compiled(model)

        def queue():
            with torch.no_grad():
                run(*inputs)

        return queue

    def step(self, case, model, inputs):
        target = torch.randn_like(inputs[0])

        def loss_of(*given):
            with torch.autocast(self.device, torch.bfloat16):
                if case["kind"] == "autoencoder":
                    return autoencoder_loss(model, *given)
                return F.mse_loss(model(*given).float(), target)

        run = self.compiled(loss_of)
        is_fused = {"fused": True} if self.device == "cuda" else {}
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.01, **is_fused)

        def queue():
            run(*inputs).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return queue

    def record(self):
        """Replaces the work by the replay of one CUDA graph, which costs the host least."""
        graph, run = torch.cuda.CUDAGraph(), self.queue
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            run()
        self.queue = graph.replay

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def memory(self):
        """Most memory since the last call."""
        if self.device != "cuda":
            return 0
        most = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return most

    def run(self, count):
        self.queue()  # After a turn of the other side, and with memory that was given back.
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            self.queue()
        self.wait()
        milliseconds = 1000 * (time.perf_counter() - start) / count
        if self.device == "cuda" and self.mode != "graphs":
            torch.cuda.empty_cache()
        return {"milliseconds": milliseconds}

    def host(self):
        times = []
        for _ in range(5):
            self.wait()
            start = time.perf_counter()
            self.queue()
            times.append(1e6 * (time.perf_counter() - start))
        self.wait()
        return sorted(times)[2]


prepared = None


def answer(ask):
    global prepared
    if ask["do"] == "prepare":
        prepared = Prepared(ask["case"], ask["settings"])
        name = torch.cuda.get_device_name() if prepared.device == "cuda" else "cpu"
        return {
            "device": f"{name}, torch {torch.__version__}",
            "compileSeconds": prepared.compile_seconds,
            "parameters": prepared.parameters,
            "memoryBytes": prepared.memory(),
        }
    if ask["do"] == "run":
        return prepared.run(ask["count"])
    return {"hostMicroseconds": prepared.host(), "memoryBytes": prepared.memory()}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as error:  # Told to compare.ts, which goes on with other work.
        result = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(result) + "\n")
    answers.flush()
