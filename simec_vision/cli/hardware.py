"""What the machine can do, as default options."""

import torch


def best_precision() -> str:
    """Choose the fastest safe precision: bf16 autocast where processor or GPU computes it natively, else float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16-mixed" if native() else "32-true"
