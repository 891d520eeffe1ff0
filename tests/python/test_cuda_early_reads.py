"""scripts/cuda_early_reads.py: what it takes for early in a listing."""

from __future__ import annotations

from types import ModuleType

import pytest
from tools import ROOT, load_script

# As nvdisasm writes it.
LISTING = """
//--------------------- .text._Z4latePf
.text._Z4latePf:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   PREEXIT ;
        /*0020*/                   ACQBULK ;
        /*0030*/              @!P2 LDG.E.128.CONSTANT R4, desc[UR8][R2.64] ;
        /*0040*/                   STG.E desc[UR8][R2.64], R4 ;
.text._Z5earlyPf:
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/              @!P2 LDG.E.128.CONSTANT R92, desc[UR8][R2.64] ;
        /*0020*/                   LDS R3, [R4] ;
        /*0030*/              @UP0 STG.E desc[UR8][R2.64], R4 ;
        /*0040*/                   ACQBULK ;
        /*0050*/                   LDG.E R92, desc[UR8][R2.64] ;
.text._Z5plainPf:
        /*0000*/                   LDG.E R92, desc[UR8][R2.64] ;
        /*0010*/                   EXIT ;
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(ROOT / "scripts" / "cuda_early_reads.py")


def test_what_is_touched_before_the_wait(script: ModuleType) -> None:
    (kernel,) = script.early_in(LISTING.splitlines())
    assert script.short(kernel.name) == "early"
    assert kernel.early == ["LDG.E.128.CONSTANT", "STG.E"]


def test_all_kernels_are_seen(script: ModuleType) -> None:
    kernels = list(script.kernels_of(LISTING.splitlines()))
    assert [(script.short(k.name), k.waits) for k in kernels] == [
        ("late", True), ("early", True), ("plain", False),
    ]  # fmt: skip
