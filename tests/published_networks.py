"""EDM's and CLD-SGM's networks as plain float64 NumPy, by the layers that their files name.

An image is (C, H, W), a state {name: array} is made as it is read: an array that is not there yet is drawn.
"""

import jax.numpy as jnp
import numpy as np

HALF = 0.5**0.5


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def first(x):
    """(..., C, H, W) from (..., H, W, C)."""
    return np.moveaxis(np.asarray(x, np.float64), -1, -3)


def last(x):
    """(..., H, W, C) from (..., C, H, W), as the package takes them."""
    return jnp.asarray(np.moveaxis(np.asarray(x, np.float32), -3, -1))


def silu(x):
    return x / (1 + np.exp(-x))


class Weights:
    """A state dictionary that draws what is asked for the first time."""

    def __init__(self, state=None, seed=0):
        self.state, self.rng = {} if state is None else state, np.random.default_rng(seed)

    def __call__(self, name, shape, scale, mean=0.0):
        if name not in self.state:
            self.state[name] = (mean + scale * self.rng.normal(size=shape)).astype(np.float32)
        return self.state[name].astype(np.float64)

    def dense(self, x, name, features, bias=True):
        y = self(f"{name}.weight", (features, len(x)), len(x) ** -0.5) @ x
        return y + self(f"{name}.bias", (features,), 0.3) if bias else y

    def convolution(self, x, name, features, side, bias=True, padding=None, stride=1):
        weight = self(f"{name}.weight", (features, len(x), side, side), (len(x) * side**2) ** -0.5)
        low, high = padding or (side // 2, side // 2)
        x = np.pad(x, ((0, 0), (low, high), (low, high)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::stride, ::stride]
        y = np.tensordot(weight, windows, ((1, 2, 3), (0, 3, 4)))
        return y + self(f"{name}.bias", (features,), 0.3)[:, None, None] if bias else y

    def norm(self, x, name, epsilon):
        grouped = x.reshape(min(32, len(x) // 4), -1)
        mean, variance = grouped.mean(1, keepdims=True), grouped.var(1, keepdims=True)
        y = ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
        scale, shift = self(f"{name}.weight", (len(x),), 0.3, 1.0), self(f"{name}.bias", (len(x),), 0.3)
        return y * scale[:, None, None] + shift[:, None, None]


def filtered(x, taps, up=1, down=1, padding=(0, 0)):
    """Zeros between the pixels, zeros around, the filter outer(taps, taps) / sum^2, every second pixel."""
    if up > 1:
        wide = np.zeros((len(x), up * x.shape[1], up * x.shape[2]))
        wide[:, ::up, ::up] = x
        x = wide
    kernel = np.outer(taps, taps) / np.sum(taps) ** 2
    kernel = kernel[::-1, ::-1] if up > 1 else kernel
    x = np.pad(x, ((0, 0), padding, padding))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape, (1, 2))[:, ::down, ::down]
    return np.einsum("chwij,ij->chw", windows, kernel) * up**2


def halved(x, taps):
    return filtered(x, taps, down=2, padding=((len(taps) - 1) // 2,) * 2)


def doubled(x, taps):
    before = len(taps) - 1 - (len(taps) - 1) // 2
    return filtered(x, taps, up=2, padding=(before, before - 1))


def attended(q, k, v):
    """(heads, features, positions) each."""
    logits = np.einsum("hcq,hck->hqk", q, k) / q.shape[1] ** 0.5
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("hqk,hck->hcq", weight / weight.sum(-1, keepdims=True), v)


def waves(label, features, last):
    """Cosines, then sines; `last` whether the longest period is reached."""
    half = features // 2
    angle = label * 1e-4 ** (np.arange(half) / (half - last))
    return np.concatenate([np.cos(angle), np.sin(angle)])


class CldSgm:
    """A network of CLD-SGM: (u, t) -> output, u the position and the velocity."""

    def __init__(self, n_channels, ch_mult, n_resblocks, attn_resolutions, use_fir, embedding_type,
                 progressive_input="none", progressive="none", skip_rescale=True):  # fmt: skip
        vars(self).update({k: v for k, v in locals().items() if k != "self"})
        self.weights, self.scale = Weights(), HALF if skip_rescale else 1.0

    def name(self, step=1):
        """The prefix of the next layer."""
        self.layer += step
        return f"module.all_modules.{self.layer}"

    def resampled(self, x, kind):
        taps = (1, 3, 3, 1) if self.use_fir else (1, 1)
        return halved(x, taps) if kind == "down" else doubled(x, taps) if kind == "up" else x

    def block(self, x, e, features=None, kind=""):
        w, name, features = self.weights, self.name(), features or len(x)
        h = self.resampled(silu(w.norm(x, f"{name}.GroupNorm_0", 1e-6)), kind)
        skip = self.resampled(x, kind)
        h = w.convolution(h, f"{name}.Conv_0", features, 3)
        h = h + w.dense(silu(e), f"{name}.Dense_0", features)[:, None, None]
        h = w.convolution(silu(w.norm(h, f"{name}.GroupNorm_1", 1e-6)), f"{name}.Conv_1", features, 3)
        if len(x) != features or kind:
            skip = w.convolution(skip, f"{name}.Conv_2", features, 1)
        return (skip + h) * self.scale

    def attention(self, x):
        w, name, width = self.weights, self.name(), len(x)

        def mixed(h, number):
            matrix = w(f"{name}.NIN_{number}.W", (width, width), width**-0.5)
            return matrix.T @ h + w(f"{name}.NIN_{number}.b", (width,), 0.3)[:, None]

        h = w.norm(x, f"{name}.GroupNorm_0", 1e-6).reshape(width, -1)
        h = attended(*(mixed(h, number)[None] for number in range(3)))[0]
        return (x + mixed(h, 3).reshape(x.shape)) * self.scale

    def pyramid(self, below, h):
        """(features, pyramid) of a level from the pyramid above it."""
        w = self.weights
        if self.progressive_input == "none":
            return h, below
        if self.progressive_input == "input_skip":
            below = self.resampled(below, "down")
            return w.convolution(below, f"{self.name()}.Conv_0", len(h), 1) + h, below
        if self.use_fir:
            below = filtered(below, (1, 3, 3, 1), padding=(2, 2))
            below = w.convolution(below, f"{self.name()}.Conv2d_0", len(h), 3, padding=(0, 0), stride=2)
        else:
            below = w.convolution(below, f"{self.name()}.Conv_0", len(h), 3, padding=(0, 1), stride=2)
        h = (below + h) * self.scale
        return h, h

    def __call__(self, u, t):
        w, base, self.layer = self.weights, self.n_channels, -1
        if self.embedding_type == "fourier":
            angle = np.log(t) * 2 * np.pi * w(f"{self.name()}.W", (base,), 1.0)
            e = np.concatenate([np.sin(angle), np.cos(angle)])
        else:
            e = np.roll(waves(t, base, True), base // 2)
        e = w.dense(silu(w.dense(e, self.name(), 4 * base)), self.name(), 4 * base)
        below, side = u, u.shape[1]
        hs = [w.convolution(u, self.name(), base, 3)]
        for level, times in enumerate(self.ch_mult):
            for _ in range(self.n_resblocks):
                h = self.block(hs[-1], e, base * times)
                hs.append(self.attention(h) if side >> level in self.attn_resolutions else h)
            if level < len(self.ch_mult) - 1:
                h, below = self.pyramid(below, self.block(hs[-1], e, kind="down"))
                hs.append(h)
        h = self.block(self.attention(self.block(hs[-1], e)), e)
        output = None
        for level, times in reversed(list(enumerate(self.ch_mult))):
            for _ in range(self.n_resblocks + 1):
                h = self.block(np.concatenate([h, hs.pop()]), e, base * times)
            h = self.attention(h) if side >> level in self.attn_resolutions else h
            if self.progressive == "output_skip" or level == 0:
                part = w.convolution(silu(w.norm(h, self.name(), 1e-6)), self.name(), len(u) // 2, 3)
                output = part if output is None else part + self.resampled(output, "up")
            h = self.block(h, e, kind="up") if level else h
        return output


class Edm:
    """A network of EDM's code: (x, label, class or None) -> output."""

    def __init__(self, model_type, out_channels, img_resolution, model_channels, channel_mult, num_blocks,
                 attn_resolutions, channel_mult_emb=4, channel_mult_noise=1, embedding_type="positional",
                 encoder_type="standard", decoder_type="standard", resample_filter=(1, 1), label_dim=0, augment_dim=0,
                 **_):  # fmt: skip
        vars(self).update({k: v for k, v in locals().items() if k not in ("self", "_")})
        self.song, self.weights = model_type == "SongUNet", Weights()

    def embedding(self, label, chosen):
        w, width = self.weights, self.model_channels * self.channel_mult_noise
        known = np.zeros(self.label_dim)
        if chosen is not None:
            known[chosen] = 1
        if self.embedding_type == "fourier":
            angle = label * 2 * np.pi * w("model.map_noise.freqs", (width // 2,), 1.0)
            h = np.concatenate([np.cos(angle), np.sin(angle)])
        else:
            h = waves(label, width, self.song)
        if self.song:
            h = np.roll(h, width // 2)
        if self.label_dim and self.song:
            h = h + w.dense(known * self.label_dim**0.5, "model.map_label", width)
        if self.augment_dim:
            w.dense(np.zeros(self.augment_dim), "model.map_augment", width, bias=False)
        features = self.model_channels * self.channel_mult_emb
        h = w.dense(silu(w.dense(h, "model.map_layer0", features)), "model.map_layer1", features)
        if self.label_dim and not self.song:
            h = h + w.dense(known, "model.map_label", features, bias=False)
        return silu(h)

    def resampled(self, x, name, kind):
        if not kind:
            return x
        taps = self.resample_filter
        self.weights.state[f"{name}.resample_filter"] = np.float32(np.outer(taps, taps) / np.sum(taps) ** 2)
        return (halved if kind == "down" else doubled)(x, taps)

    def block(self, x, e, name, features, kind="", attends=False):
        w, epsilon, scale = self.weights, 1e-6 if self.song else 1e-5, HALF if self.song else 1.0
        h = self.resampled(silu(w.norm(x, f"{name}.norm0", epsilon)), f"{name}.conv0", kind)
        h = w.convolution(h, f"{name}.conv0", features, 3)
        share = w.dense(e, f"{name}.affine", features * (1 if self.song else 2))[:, None, None]
        if self.song:
            h = silu(w.norm(h + share, f"{name}.norm1", epsilon))
        else:
            h = silu(w.norm(h, f"{name}.norm1", epsilon) * (1 + share[:features]) + share[features:])
        h = w.convolution(h, f"{name}.conv1", features, 3)
        skip = self.resampled(x, f"{name}.skip", kind)
        if len(x) != features or (kind and self.song):
            skip = w.convolution(skip, f"{name}.skip", features, 1)
        h = (h + skip) * scale
        heads = attends and (1 if self.song else features // 64)
        if heads:
            qkv = w.convolution(w.norm(h, f"{name}.norm2", epsilon), f"{name}.qkv", 3 * features, 1)
            q, k, v = np.moveaxis(qkv.reshape(heads, features // heads, 3, -1), 2, 0)
            h = (w.convolution(attended(q, k, v).reshape(h.shape), f"{name}.proj", features, 1) + h) * scale
        return h

    def __call__(self, x, label, chosen=None):
        w, e, base = self.weights, self.embedding(label, chosen), self.model_channels
        h, skips, pyramid = x, [], x
        for level, times in enumerate(self.channel_mult):
            side = self.img_resolution >> level
            name = f"model.enc.{side}x{side}"
            if level == 0:
                h = w.convolution(h, f"{name}_conv", base if self.song else base * times, 3)
            else:
                h = self.block(h, e, f"{name}_down", len(h), "down")
                if self.encoder_type == "skip":
                    pyramid = self.resampled(pyramid, f"{name}_aux_down", "down")
                    h = h + w.convolution(pyramid, f"{name}_aux_skip", len(h), 1)
                elif self.encoder_type == "residual":
                    border = 1 + (len(self.resample_filter) - 1) // 2
                    aux = w.convolution(pyramid, f"{name}_aux_residual", len(h), 3, padding=(border, border))
                    self.resampled(np.zeros((1, 2, 2)), f"{name}_aux_residual", "down")
                    h = pyramid = (h + filtered(aux, self.resample_filter, down=2)) * HALF
            skips.append(h)
            for i in range(self.num_blocks):
                h = self.block(h, e, f"{name}_block{i}", base * times, attends=side in self.attn_resolutions)
                skips.append(h)
        output = None
        for level, times in reversed(list(enumerate(self.channel_mult))):
            side = self.img_resolution >> level
            name = f"model.dec.{side}x{side}"
            if level == len(self.channel_mult) - 1:
                h = self.block(h, e, f"{name}_in0", len(h), attends=True)
                h = self.block(h, e, f"{name}_in1", len(h))
            else:
                h = self.block(h, e, f"{name}_up", len(h), "up")
            for i in range(self.num_blocks + 1):
                attends = side in self.attn_resolutions and (i == self.num_blocks or not self.song)
                h = np.concatenate([h, skips.pop()])
                h = self.block(h, e, f"{name}_block{i}", base * times, attends=attends)
            if self.song and (self.decoder_type == "skip" or level == 0):
                if output is not None:
                    output = self.resampled(output, f"{name}_aux_up", "up")
                part = silu(w.norm(h, f"{name}_aux_norm", 1e-6))
                part = w.convolution(part, f"{name}_aux_conv", self.out_channels, 3)
                output = part if output is None else output + part
        if self.song:
            return output
        return w.convolution(silu(w.norm(h, "model.out_norm", 1e-5)), "model.out_conv", self.out_channels, 3)
