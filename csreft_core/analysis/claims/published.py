"""The parameter counts that the papers print, counted again from the published shapes."""

from csreft_core.analysis.claims.parameter_formulas import (
    Shape,
    dora_parameters,
    lora_parameters,
    paper_router_parameters,
    prefix_parameters,
    red_parameters,
    shape_of,
    subspace_parameters,
)

_LORA_7B = ("q", "k", "v", "up", "down")


def published_counts() -> list[tuple[str, str, str, int, int, str, str]]:
    """Method, base, how it is counted, count, denominator, printed share, source."""
    llama, large_llama, llama3 = (shape_of(f"Llama-{n}") for n in ("2 7B", "2 13B", "3 8B"))
    base, large = shape_of("RoBERTa base"), shape_of("RoBERTa large")
    d, n = llama.d_model, llama.parameters

    def loreft(s: Shape, rank: int, layers: int, groups: int = 1) -> int:
        return subspace_parameters(s.d_model, rank=rank, layers=layers, groups=groups)

    lora = lora_parameters(llama, 32, _LORA_7B)
    dora = dora_parameters(llama, 32, _LORA_7B)
    every = "r = 8, all 32 layers, tied"
    return [
        (
            "LoReFT, instructions",
            llama.base,
            "r = 4, layers 3, 9, 18, 24, untied: 2·4·4(2d+1)",
            loreft(llama, 4, 4, 2),
            n,
            "0.0039",
            "ReFT, table 3",
        ),
        (
            "LoReFT, instructions, half rank",
            llama.base,
            "r = 2, the same layers, untied",
            loreft(llama, 2, 4, 2),
            n,
            "0.0019",
            "ReFT, table 3",
        ),
        (
            "LoReFT, commonsense",
            llama.base,
            every,
            loreft(llama, 8, 32),
            n,
            "0.031",
            "ReFT, table 1",
        ),
        (
            "LoReFT, commonsense",
            large_llama.base,
            "r = 8, all 40 layers, tied",
            loreft(large_llama, 8, 40),
            large_llama.parameters,
            "0.025",
            "ReFT, table 1",
        ),
        (
            "LoReFT, commonsense",
            llama3.base,
            every,
            loreft(llama3, 8, 32),
            llama3.parameters,
            "0.026",
            "ReFT, table 1",
        ),
        (
            "LoReFT, GLUE",
            base.base,
            "r = 1, all 12 layers",
            loreft(base, 1, 12),
            base.parameters,
            "0.015",
            "ReFT, table 4",
        ),
        (
            "LoReFT, GLUE",
            large.base,
            "r = 1, all 24 layers",
            loreft(large, 1, 24),
            large.parameters,
            "0.014",
            "ReFT, table 4",
        ),
        ("RED", llama.base, "2·d·32", red_parameters(llama), n, "0.0039", "ReFT, table 3"),
        (
            "LoRA",
            llama.base,
            "r = 16 on q and v, or r = 8 on q, k, v, o",
            lora_parameters(llama, 16, ("q", "v")),
            n,
            "0.1245",
            "ReFT, table 3",
        ),
        (
            "LoRA of LLM-Adapters",
            llama.base,
            "r = 32 on q, k, v, up, down; share of base + LoRA",
            lora,
            n + lora,
            "0.826",
            "ReFT, table 1",
        ),
        (
            "DoRA",
            llama.base,
            "the same with DoRA's lengths; share of base + DoRA",
            dora,
            n + dora,
            "0.838",
            "ReFT, table 1",
        ),
        (
            "prefix tuning",
            llama.base,
            "10 tokens",
            prefix_parameters(llama, 10),
            n,
            "0.039",
            "ReFT, table 1",
        ),
        (
            "CS-ReFT's router alone",
            llama.base,
            "d to d/2 to 4",
            paper_router_parameters(d, 4),
            n,
            "",
            "CS-ReFT, section 4; the paper prints no count",
        ),
    ]
