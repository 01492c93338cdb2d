"""One record per contender: where its adapter is, and how it looks. This is where contenders are registered.

Standard library only, because tables and figures look contenders up here and must not import torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ContenderRecord:
    """A contender by name.

    adapter: "module:NAME", the Contender called NAME in that module of this folder.
    marker, color, on_dark: override those of the gradient. Contenders other than ours and torchdiffeq need a marker,
    because several of them have a gradient in common, such as backprop.
    ours: whether it is this repository's library; ours is drawn with filled markers and solid lines, others with hollow
    markers and dashed lines. own_methods: whether its gradients name methods of its own, whatever the cell's.
    """

    name: str
    adapter: str
    marker: str | None = None
    color: str | None = None
    on_dark: str | None = None
    ours: bool = False
    own_methods: bool = False


_IN_DISPLAY_ORDER = (
    ContenderRecord("ours", "ours:OURS", ours=True),
    ContenderRecord("ours-compiled", "ours:OURS_COMPILED", marker=">", ours=True),
    ContenderRecord("ours-captured", "ours:OURS_CAPTURED", marker="v", ours=True),
    ContenderRecord("ours-captured-compiled", "ours:OURS_CAPTURED_COMPILED", marker="H", ours=True),
    ContenderRecord("ours-float64", "ours:OURS_FLOAT64", marker="h", color="#8787C3", on_dark="#A5A5E1", ours=True),
    ContenderRecord(
        "ours-compensated", "ours:OURS_COMPENSATED", marker="8", color="#78782D", on_dark="#A5C378", ours=True
    ),
    ContenderRecord("torchdiffeq", "torchdiffeq:TORCHDIFFEQ"),
    ContenderRecord("torchdiffeqpack", "torchdiffeqpack:TORCHDIFFEQPACK", marker="D"),
    ContenderRecord("paper", "paper:PAPER", marker="p"),
    ContenderRecord("torchode", "torchode:TORCHODE", marker="<"),
    ContenderRecord("rampde", "rampde:RAMPDE", marker="X"),
    ContenderRecord("rampde-bf16", "rampde:RAMPDE_BF16", marker="2"),
    ContenderRecord("diffrax", "diffrax:DIFFRAX", marker="d"),
    ContenderRecord("diffrax-reversible", "diffrax:DIFFRAX_REVERSIBLE", marker="|"),
    ContenderRecord("zuko", "zuko:ZUKO", marker="+"),
    ContenderRecord("torchdyn", "torchdyn:TORCHDYN", marker="x"),
    ContenderRecord("pnode", "pnode:PNODE", marker="3"),
    ContenderRecord("scipy", "scipy:SCIPY", marker="4", own_methods=True),
    ContenderRecord("floor", "floor:FLOOR", marker="_"),
)

CONTENDER_RECORDS = {record.name: record for record in _IN_DISPLAY_ORDER}


def contender_record(name: str) -> ContenderRecord:
    """Return the record of a contender, or one without an adapter if it is not registered."""
    return CONTENDER_RECORDS.get(name) or ContenderRecord(name, "")


def contender_place(name: str) -> int:
    """Return a sort key in display order, contenders that are not registered last."""
    known = list(CONTENDER_RECORDS)
    return known.index(name) if name in known else len(known)
