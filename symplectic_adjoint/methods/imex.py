"""Additive (IMEX) methods, for f = f_E + f_I with an explicit and an implicit method of the same nodes."""

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

from symplectic_adjoint.methods.coefficients import Row, difference, root, row, table, triangle
from symplectic_adjoint.methods.interpolant import Interpolant
from symplectic_adjoint.methods.tableau import ButcherTableau

T = TypeVar("T")

_ZERO, _ONE = Fraction(0), Fraction(1)


def _interleaved(implicit: Sequence[T], explicit: Sequence[T]) -> tuple[T, ...]:
    """Return what belongs to the rows of both parts, in the order of the rows."""
    return tuple(entry for pair in zip(implicit, explicit, strict=True) for entry in pair)


def _stages(implicit: Sequence[Row], explicit: Sequence[Row], diagonal: Row) -> tuple[Row, ...]:
    """Return A: each stage twice, the second time with its implicit part as one more column."""
    states = [_interleaved(*rows) for rows in zip(implicit, explicit, strict=True)]
    return _interleaved(states, [(*state, g) for state, g in zip(states, diagonal, strict=True)])


_ARS_SQRT2 = root(row("-2 0 1"), near=Fraction(7, 5))
_ARS_GAMMA, _ARS_DELTA = 1 - _ARS_SQRT2 / 2, -_ARS_SQRT2 / 2
_ARS_NODES = (_ZERO, _ARS_GAMMA, _ONE)
_ARS_LAST = 1 - _ARS_GAMMA

# f_I at the start, row 0, has no weight at all, so that nothing amplifies what is stiff in the state.
ARS222 = ButcherTableau(
    name="ars222",
    also_called=("imex_ars222",),
    order=2,
    A=_stages(
        implicit=((), (_ZERO,), (_ZERO, _ARS_LAST)),
        explicit=((), (_ARS_GAMMA,), (_ARS_DELTA, 1 - _ARS_DELTA)),
        diagonal=(_ZERO, _ARS_GAMMA, _ARS_GAMMA),
    ),
    diagonal=_interleaved((_ZERO, _ARS_GAMMA, _ARS_GAMMA), (_ZERO,) * 3),
    parts=(1, 0) * 3,
    b=_interleaved((_ZERO, _ARS_LAST, _ARS_GAMMA), (_ARS_DELTA, 1 - _ARS_DELTA, _ZERO)),
    c=_interleaved(_ARS_NODES, _ARS_NODES),
    source="U. M. Ascher, S. J. Ruuth, R. J. Spiteri, Implicit-explicit Runge-Kutta methods for time-dependent partial "
    "differential equations, Appl. Numer. Math. 25 (1997) 151-167, section 2.6",
    # The quadratics that meet the conditions of order 2, sum b_i = sigma and sum b_i c_i = sigma^2 / 2 for each part.
    interpolant=Interpolant(
        order=2,
        weights=_interleaved(
            (row("0 0"), (1 / _ARS_LAST, -1 / (2 * _ARS_LAST)), (-_ARS_GAMMA / _ARS_LAST, 1 / (2 * _ARS_LAST))),
            ((_ONE, -1 / (2 * _ARS_GAMMA)), (_ZERO, 1 / (2 * _ARS_GAMMA)), row("0 0")),
        ),
    ),
    exact=False,
)

# Both parts have the same b, error weights and dense output. The explicit part and the dense output are published as
# rational approximations, good to 24 digits.
_KENCARP4_B = row("82889/524892 0 15625/83664 69875/102672 -2260/8211 1/4")
_KENCARP4_ERROR = difference(
    _KENCARP4_B,
    row(
        """
        4586570599/29645900160 0 178811875/945068544 814220225/1159782912 -3700637/11593932 61727/225920
        """
    ),
)
_KENCARP4_NODES = row("0 1/2 83/250 31/50 17/20 1")
_KENCARP4_DENSE = table(
    """
    6943876665148/7220017795957 -54480133/30881146 6818779379841/7100303317025;
    0 0 0;
    7640104374378/9702883013639 -11436875/14766696 2173542590792/12501825683035;
    -20649996744609/7521556579894 174696575/18121608 -31592104683404/5083833661969;
    8854892464581/2390941311638 -12120380/966161 61146701046299/7138195549469;
    -11397109935349/6675773540249 3843/706 -17219254887155/4939391667607
    """
)

KENCARP4 = ButcherTableau(
    name="kencarp4",
    also_called=("ark4", "ark436l2sa", "ark436"),
    order=4,
    A=_stages(
        implicit=(
            *triangle(
                """
                1/4;
                8611/62500 -1743/31250;
                5012029/34652500 -654441/2922500 174375/388108;
                15267082809/155376265600 -71443401/120774400 730878875/902184768 2285395/8070912
                """
            ),
            _KENCARP4_B[:5],
        ),
        explicit=triangle(
            """
            1/2;
            13861/62500 6889/62500;
            -116923316275/2393684061468 -2731218467317/15368042101831 9408046702089/11113171139209;
            -451086348788/2902428689909 -2682348792572/7519795681897 12662868775082/11960479115383
            3355817975965/11060851509271;
            647845179188/3216320057751 73281519250/8382639484533 552539513391/3454668386233
            3354512671639/8306763924573 4040/17871
            """
        ),
        diagonal=row("0 1/4 1/4 1/4 1/4 1/4"),
    ),
    diagonal=_interleaved(row("0 1/4 1/4 1/4 1/4 1/4"), (_ZERO,) * 6),
    parts=(1, 0) * 6,
    b=_interleaved(_KENCARP4_B, _KENCARP4_B),
    c=_interleaved(_KENCARP4_NODES, _KENCARP4_NODES),
    b_error=_interleaved(_KENCARP4_ERROR, _KENCARP4_ERROR),
    error_order=3,
    source="C. A. Kennedy, M. H. Carpenter, Additive Runge-Kutta schemes for convection-diffusion-reaction equations, "
    "Appl. Numer. Math. 44 (2003) 139-181, ARK4(3)6L[2]SA, dense output included",
    interpolant=Interpolant(order=3, weights=_interleaved(_KENCARP4_DENSE, _KENCARP4_DENSE)),
    exact=False,
)
