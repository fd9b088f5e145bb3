"""Checks of the net on a GPU: response normalisation, a training step, evaluation, and waits for the device."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import tiny
import torch
import torch.nn.functional as F
from alexnet_dali.model.nets import lrn
from alexnet_dali.model.recipes import optim
from alexnet_dali.model.training.evaluate import EvalOptions, Result, evaluate
from alexnet_dali.model.training.precision import autocast, set_precision
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.pipeline.stream.autotune import THREADS
from alexnet_dali.pipeline.stream.stream import Batch
from alexnet_dali.pipeline.stream.streams import train_stream
from alexnet_dali.tools.bench.train_cases import TorchNorm
from gpu_setting import Operations, Setting, agree, close, has_dali
from torch import Tensor, nn

# Of the largest value: what rounding of the inputs and of the sums leaves.
NORM_ERRORS = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 1e-2}
TORCH_BF16 = 2e-2  # the torch form's sums of squares are bf16 too
# Of a parameter's gradient or change, by its norm. Of two responses that are equal but for rounding, pooling and ReLU
# may pass on another one, so this is far more than rounding.
# Two forms of normalisation on a CPU are 1e-3 apart in fp32, fp32 and bf16 0.15.
UPDATE_ERROR = 1e-6  # of the largest value
STEP_ERRORS = {"fp32": 1e-2, "tf32": 1e-1, "bf16": 3e-1}
PROBABILITIES = 1e-3
WAITS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")  # need a value on the host


class WithinSquare(nn.Module):
    """Response normalisation within a map by torch's average pool: an oracle that shares no code with ours."""

    def __init__(self, scale: float, size: int, constant: float):
        super().__init__()
        self.scale, self.size, self.constant = scale, size, constant

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, channels, height, width)."""
        total = self.size**2 * F.avg_pool2d(x * x, self.size, 1, self.size // 2)
        return x / (self.constant + self.scale * total) ** 0.75


def norms(pictures: int) -> Iterator[tuple[str, nn.Module, nn.Module, tuple[int, ...]]]:
    """Yield the normalisations of the net: name, ours, its oracle, and the shape of a batch; and two of odd sizes."""
    for name, columns, shape in (("across 1", 2, (96, 55, 55)), ("across 2", 2, (256, 27, 27)), ("odd", 1, (7, 5, 9))):
        ours = lrn.AcrossMaps(2e-5, columns=columns)
        yield name, ours, TorchNorm(ours.scale, ours.size, ours.constant, columns), (pictures, *shape)
    for name, shape in (("within", (256, 27, 27)), ("odd within", (7, 5, 9))):
        ours = lrn.WithinMap()
        yield name, ours, WithinSquare(ours.scale, ours.size, ours.constant), (pictures, *shape)


def forms(device: torch.device) -> list[str]:
    """List the forms of response normalisation that this device has."""
    known = [value for name, value in vars(lrn).items() if name.isupper() and isinstance(value, str)]
    return [form for form in known if lrn.pick_form(device, form) == form]


def normalisation(setting: Setting) -> None:
    """4. Both normalisations equal float64, values and gradients, in every form; their time and their kernels."""
    need_triton(setting)
    failures = []
    precisions = ["fp32", "tf32", "bf16"] if setting.on_gpu else ["fp32", "bf16"]
    for form in forms(setting.device):
        for precision in precisions:
            set_precision(precision, setting.device)
            limit = TORCH_BF16 if (form, precision) == (lrn.TORCH, "bf16") else NORM_ERRORS[precision]
            worst = 0.0
            for name, ours, oracle, shape in norms(setting.size(4, 1)):
                ours.form = form
                for what, error in errors(setting, ours, oracle, shape, precision).items():
                    worst = max(worst, error)
                    if not error <= limit:
                        failures.append(f"{form}, {name}, {precision}: {what} is {error:.1e} of the largest away")
            setting.record(**{f"{form} {precision}": float(f"{worst:.2g}")})
        for name, ours, _, shape in norms(setting.size(128, 1)):
            if "odd" not in name:
                ours.form = form
                setting.record(**{f"{form} {name}": timing(setting, ours, shape)})
    agree(failures)


def need_triton(setting: Setting) -> None:
    """Fail where a GPU has only torch's form."""
    if setting.on_gpu:
        assert lrn.TRITON in forms(setting.device), f"no Triton form: {lrn.triton_trouble(setting.device)}"


def errors(setting: Setting, ours: nn.Module, oracle: nn.Module, shape, precision: str) -> dict[str, float]:
    """Compare values and gradients with the oracle's in float64, relative to the largest."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, gradient = (scale * torch.randn(shape, generator=torch.Generator().manual_seed(5)) for scale in (100.0, 1.0))
    x, gradient = (each.to(dtype).contiguous(memory_format=torch.channels_last) for each in (x, gradient))
    known = x.double().requires_grad_()
    expected = oracle(known)
    expected.backward(gradient.double())
    own = x.to(setting.device).requires_grad_()
    with autocast(setting.device, precision):
        found = ours(own)
    found.backward(gradient.to(setting.device))
    assert known.grad is not None and own.grad is not None, "both have gradients"
    return {"value": close(found, expected), "gradient": close(own.grad, known.grad)}


def timing(setting: Setting, ours: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """Measure forward and backward in bf16: milliseconds, kernels, bytes an element at the measured time."""
    x = torch.randn(shape, device=setting.device, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()

    def work() -> None:
        x.grad = None
        with autocast(setting.device, "bf16"):
            out = ours(x)
        out.backward(out.detach())

    took = setting.milliseconds(work, setting.size(20, 1))
    return {"ms": round(took, 4), "kernels": len(setting.kernels(work))}


def trainer_of(setting: Setting, device: torch.device, precision: str = "fp32", **changes) -> Trainer:
    """Make a trainer on the photos for correctness."""
    shard_set, _ = setting.shards("correct/jpeg")
    options = {"batch_size": 16, "rate": 0.01, "precision": precision, "device": str(device), **changes}
    return tiny.trainer_of(shard_set, setting.scratch / f"run {device.type} {precision}", **options)


def first_batch(trainer: Trainer, device: torch.device) -> Batch:
    """Return the first batch of a run, made on the CPU and copied to a device."""
    with train_stream(trainer.shard_set, trainer.stats, trainer.plan, light=trainer.recipe.light(2)) as stream:
        return copied(next(stream), device)


def copied(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to a device, in its memory format."""
    return replace(batch, images=batch.images.to(device), labels=batch.labels.to(device))


def step(setting: Setting) -> None:
    """5. A training step equals the CPU's: loss, gradients, weights; and so does an evaluation by one view and ten."""
    cpu, failures = torch.device("cpu"), []
    reference = trainer_of(setting, cpu)
    batch = first_batch(reference, cpu)
    moving = torch.Generator().manual_seed(6)  # velocities as in the middle of a run
    velocities = {
        name: 1e-4 * torch.randn(each.shape, generator=moving) for name, each in reference.net.named_parameters()
    }
    reference.optimizer.restore(velocities)
    expected, _ = reference._update(batch)
    for precision in ["fp32", "tf32", "bf16"] if setting.on_gpu else ["fp32", "bf16"]:
        trainer = trainer_of(setting, setting.device, precision)
        trainer.optimizer.restore(velocities)
        loss, _ = trainer._update(copied(batch, setting.device))
        away = {"loss": abs(float(loss) - float(expected)) / float(expected)}
        for (name, own), (_, other) in zip(
            trainer.net.named_parameters(), reference.net.named_parameters(), strict=True
        ):
            assert own.grad is not None and other.grad is not None, f"{name} has no gradient"
            away[f"gradient of {name}"] = distance(own.grad, other.grad)
            away[name] = distance(own, other)
            pair = (each.optimizer.velocities()[name] for each in (trainer, reference))
            away[f"velocity of {name}"] = distance(*pair)
        worst = max(away, key=lambda name: away[name])
        setting.record(**{f"step {precision}": {"worst": worst, "error": float(f"{away[worst]:.2g}")}})
        if not away[worst] <= STEP_ERRORS[precision]:
            failures.append(f"{precision}: {worst} is {away[worst]:.1e} away")
    failures += update(setting)
    agree(failures)
    if has_dali():
        evaluation(setting)
    else:
        setting.record(evaluation="skipped: no DALI")


def update(setting: Setting) -> list[str]:
    """Compare the fused update with float64, alone: in a whole step a wrong decay is smaller than the rounding."""
    failures, rule = [], (0.9, 0.01, 0.4)  # momentum, rate, decay
    for name, orders in {"alike": ("last", "last"), "other strides": ("last", "first")}.items():
        formats = {"last": torch.channels_last, "first": torch.contiguous_format}
        generator = torch.Generator().manual_seed(7)
        v, w, g = (scale * torch.randn(64, 32, 5, 5, generator=generator) for scale in (0.01, 0.05, 0.1))
        expected = [each.double() for each in (v, w, g)]
        optim._written_out(*expected, *rule)
        own = [each.to(setting.device) for each in (v, w, g)]
        own = [each.contiguous(memory_format=formats[orders[i == 2]]) for i, each in enumerate(own)]
        optim._fused([(own[0], own[1], own[2])], *rule)
        error = max(close(found, known) for found, known in zip(own[:2], expected[:2], strict=True))
        setting.record(**{f"update, {name}": float(f"{error:.2g}")})
        if not error <= UPDATE_ERROR:
            failures.append(f"the update, {name}, is {error:.1e} of the largest away")
    return failures


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, relative to the expected one's; what is near zero counts little."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / (expected.norm() + 1e-4 * expected.numel() ** 0.5))


def evaluation(setting: Setting) -> None:
    """Compare an evaluation on the device with the CPU's, by a net that gives the photos different probabilities."""
    cpu = torch.device("cpu")
    reference, other = (trainer_of(setting, device) for device in (cpu, setting.device))
    with torch.no_grad():
        logits = reference.net.eval()(first_batch(reference, cpu).images)
        factor = 1 / logits.std(dim=0).max()
        reference.net.fc8.weight.mul_(factor)
        reference.net.fc8.bias.copy_(-factor * logits.mean(dim=0))
    other.net.load_state_dict(reference.net.state_dict())
    for views in (1, 10):
        (expected, wanted), (result, found) = (evaluated(trainer, views) for trainer in (reference, other))
        away = float((found - wanted).abs().max())
        setting.record(**{f"{views} views": {"loss": round(result.loss, 4), "probabilities": float(f"{away:.2g}")}})
        assert float(wanted.std(dim=0).max()) > 1e-2, "the net gives all photos the same probabilities"
        assert away <= PROBABILITIES, f"{views} views: a probability is {away:.1e} away"
        same = (result.images, result.top1_error) == (expected.images, expected.top1_error)
        assert same, f"{views} views: {result}, on the CPU {expected}"


def evaluated(trainer: Trainer, views: int) -> tuple[Result, Tensor]:
    """Evaluate on `val`; returns the result, and the probabilities on the CPU."""
    seen: list[Tensor] = []
    options = EvalOptions(views=views, decode=THREADS, device=trainer.device)
    result = evaluate(
        [trainer.net], trainer.shard_set, trainer.stats, "val", options, see=lambda *batch: seen.append(batch[2].cpu())
    )
    assert result is not None, "nothing stops it"
    return result, torch.cat(seen)


def waits(setting: Setting) -> None:
    """7. No step waits for the GPU: twenty steps that print nothing, on a batch that stays, then with the stream."""
    trainer = trainer_of(setting, setting.device, log_every=1000, batch_size=2)  # 30 steps an epoch
    batch = trainer.work.batch(first_batch(trainer, setting.device))
    trainer._update(batch)  # allocates, and compiles kernels
    with no_waits(setting):
        for _ in range(setting.size(20, 3)):
            loss, wrong = trainer._update(batch)
            trainer.state.end_step(loss, wrong, 2)
    setting.record(**{"resident batch": "no wait"})
    if setting.on_gpu and not has_dali():
        setting.record(stream="skipped: no DALI")
        return
    trainer = trainer_of(setting, setting.device, log_every=1000, batch_size=2)
    with ExitStack() as watched:
        steps = iter(range(1, 1000))

        def stop() -> bool:  # after each step; the first ones allocate
            number = next(steps)
            if number == 3:
                watched.enter_context(no_waits(setting))
            if number == setting.size(23, 6):
                watched.close()
            return number == setting.size(25, 7)

        trainer.train(stop=stop)
    assert next(steps) > setting.size(23, 6), "the run ended before the steps were counted"
    setting.record(stream="no wait")


@contextmanager
def no_waits(setting: Setting) -> Iterator[None]:
    """Make whatever waits for the GPU an error; on the CPU, operations whose result the host needs."""
    if not setting.on_gpu:
        with Operations(forbidden=WAITS):
            yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        raise AssertionError(f"a step waits for the GPU: {' '.join(str(error).split())[:200]}") from error
    finally:
        torch.cuda.set_sync_debug_mode("default")
