"""What the papers claim, in our words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What a paper says, in our words.

    Attributes:
        name: Its id.
        paper: Which one.
        places: Sections and tables.
        text: The claim.
        why_not: Why it cannot be tested here; empty where it can.
        identity: Why the measurement checks the code and is no evidence; empty where it is.
    """

    name: str
    paper: str
    places: str
    text: str
    why_not: str = ""
    identity: str = ""


CLAIMS = (
    Claim(
        "C1",
        "CS-ReFT",
        "abstract, sections 1 and 3.3",
        "Subspaces of their own keep skills apart: training one does not harm the others.",
    ),
    Claim(
        "C2",
        "CS-ReFT",
        "section 1",
        "Orthonormal subspaces of hidden states separate skills better than orthogonal LoRA, "
        "which acts on weights.",
    ),
    Claim(
        "C3",
        "CS-ReFT",
        "sections 3.2 and 3.3",
        "The router composes subspaces where a prompt needs several skills.",
    ),
    Claim(
        "C4",
        "CS-ReFT",
        "section 3.2",
        "The router finds which prompt needs which subspace, without labels.",
    ),
    Claim(
        "C5",
        "CS-ReFT",
        "table 1, sections 1, 3.2 and 3.3",
        "It trains 0.0098 % of Llama-2-7B, 12.7 times less than LoRA, and the router adds little.",
    ),
    Claim(
        "C6",
        "CS-ReFT",
        "abstract, table 1",
        "With it Llama-2-7B reaches 93.94 % on AlpacaEval, more than GPT-3.5 Turbo.",
        why_not="Rank, layers, positions, data, seeds, decoding and judge are not published, "
        "the released code trains no subspace, and the judge is a paid service. `generate "
        "--format alpaca_eval` writes the file for whoever has a base and the judge.",
    ),
    Claim(
        "C7",
        "CS-ReFT",
        "section 3.3",
        "Changes to one subspace do not overwrite another: skills learned one after the other "
        "are kept.",
    ),
    Claim(
        "R1",
        "ReFT",
        "section 3.2, equation 2",
        "The edit moves a hidden state inside its subspace alone, to the learned target.",
        identity="The code computes the edit by that equation, so the measurement checks the "
        "code and says nothing about models.",
    ),
    Claim(
        "R2",
        "ReFT",
        "section 4.1, appendix D.2",
        "Editing a few prompt tokens is enough; more do not help.",
    ),
    Claim(
        "R3",
        "ReFT",
        "appendix F.1",
        "One learned vector, rank 1 at one layer and one token, can hold a long text.",
    ),
    Claim(
        "R4",
        "ReFT",
        "appendix G.1 and pyreft's notebooks",
        "The edit can be scaled after training: 0 is the base, and a negative factor works "
        "against the skill.",
    ),
)
"""C1 to C7 are those of CS-ReFT, R1 to R4 those of ReFT that this project can look at."""
