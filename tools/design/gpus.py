"""What accelerators can do, from their makers' data sheets.

Compute is dense BF16 with FP32 accumulation (FP16 for V100 and ATOM, which have no BF16), never the sparse figure.
"""

from dataclasses import dataclass

from rapidfuzz import fuzz, process


@dataclass(frozen=True)
class Gpu:
    """One accelerator. Units: TFLOP/s, GB (10^9 bytes), GB/s, W, USD per hour; `link` is both directions together."""

    name: str
    tflops: float
    memory: float
    bandwidth: float
    link: float
    watts: float
    mfu: float
    """Reachable share of `tflops` in training, before what each step costs; see README.md for where it is from."""
    measured: bool
    """Whether `mfu` comes from published runs on it; else it is taken from its nearest relative, on the low side."""
    price: tuple[float, float] | None
    """What an hour was rented for in 2025, cheapest to dearest usual offer; None where no public price is known."""
    trains: bool = True
    source: str = ""

    @property
    def flops(self) -> float:
        """FLOP/s."""
        return self.tflops * 1e12


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("V100-32G", 125, 32, 900, 300, 300, 0.25, True, (0.5, 3.1), source="NVIDIA V100 data sheet (SXM2)"),
        Gpu("A100-40G", 312, 40, 1555, 600, 400, 0.44, True, (1.0, 3.7), source="NVIDIA A100 data sheet (SXM4)"),
        Gpu("A100-80G", 312, 80, 2039, 600, 400, 0.44, True, (1.2, 4.1), source="NVIDIA A100 data sheet (SXM4)"),
        Gpu("H100", 989, 80, 3350, 900, 700, 0.38, True, (2.0, 6.0), source="NVIDIA H100 data sheet (SXM5)"),
        Gpu("H200", 989, 141, 4800, 900, 700, 0.38, False, (2.5, 7.0), source="NVIDIA H200 data sheet (SXM)"),
        Gpu("B200", 2250, 180, 7700, 1800, 1000, 0.36, False, (3.5, 10.0), source="NVIDIA HGX B200 data sheet"),
        Gpu("GB200", 2500, 186, 8000, 1800, 1200, 0.36, False, None, source="NVIDIA GB200 NVL72 data sheet"),
        Gpu("L40S", 362, 48, 864, 64, 350, 0.28, False, (0.8, 2.0), source="NVIDIA L40S data sheet (PCIe)"),
        Gpu("RTX 4090", 165, 24, 1008, 64, 450, 0.28, False, (0.3, 0.8), source="NVIDIA Ada white paper (PCIe)"),
        Gpu("MI250X", 383, 128, 3277, 800, 560, 0.36, True, None, source="AMD MI250X data sheet (OAM)"),
        Gpu("MI300X", 1307, 192, 5300, 896, 750, 0.30, False, (1.8, 6.0), source="AMD MI300X data sheet (OAM)"),
        Gpu("Gaudi 3", 1835, 128, 3700, 1200, 900, 0.28, False, None, source="Intel Gaudi 3 white paper (HL-325L)"),
        Gpu("RNGD", 256, 48, 1500, 64, 180, 0.0, False, None, trains=False, source="FuriosaAI RNGD data sheet (PCIe)"),
        Gpu("ATOM", 32, 16, 256, 64, 130, 0.0, False, None, trains=False, source="Rebellions ATOM CA12 data sheet"),
    )
}
_SHORT = {"a100": "A100-80G", "v100": "V100-32G", "4090": "RTX 4090", "gaudi": "Gaudi 3", "mi250": "MI250X"}


def find_gpu(said: str) -> Gpu | None:
    """The accelerator that `said` names ("a100 80gb", "H100 SXM", "4090"); None when it is none of the table."""
    wanted = _folded(said)
    for form in ("nvidia", "amd", "geforce", "intel", "sxm5", "sxm4", "sxm2", "sxm", "hgx", "gpu", "hbm3e"):
        wanted = wanted.replace(form, "")
    folded = {_folded(name): gpu for name, gpu in GPUS.items()} | {k: GPUS[v] for k, v in _SHORT.items()}
    return folded.get(wanted) or folded.get(wanted.removesuffix("b"))


def near_gpus(said: str) -> list[str]:
    """Names of the table like `said`, at most three; the usual ones when nothing is like it."""
    close = process.extract(said.upper(), list(GPUS), scorer=fuzz.ratio, limit=3, score_cutoff=50)
    return [name for name, _, _ in close] or ["A100-80G", "H100", "H200"]


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
