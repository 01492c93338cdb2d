"""Diagonally implicit methods, all A-stable.

Where the last stage is f at the end of the step, dense output takes that slope from it and adds no row.
"""

from fractions import Fraction

from symplectic_adjoint.methods.coefficients import difference, root, row, table, triangle
from symplectic_adjoint.methods.interpolant import Interpolant, hermite_weights, linear
from symplectic_adjoint.methods.tableau import ButcherTableau

_ONE, _HALF = Fraction(1), Fraction(1, 2)
_SQRT2 = root(row("-2 0 1"), near=Fraction(7, 5))

IMPLICIT_EULER = ButcherTableau(
    name="implicit_euler",
    also_called=("backward_euler", "beuler"),
    order=1,
    A=((),),
    diagonal=row("1"),
    b=row("1"),
    c=row("1"),
    source="E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (2nd ed., 1996), section IV.3",
    interpolant=linear(row("1")),
)

# Dense output of order 2 would need f at the end, which the step does not damp where h lambda is large.
IMPLICIT_MIDPOINT = ButcherTableau(
    name="implicit_midpoint",
    also_called=("gauss2", "gauss_legendre_2", "gl2"),
    order=2,
    A=((),),
    diagonal=row("1/2"),
    b=row("1"),
    c=row("1/2"),
    source="E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (2nd ed., 1996), section IV.5, Gauss "
    "method with s = 1",
    interpolant=linear(row("1")),
)

CRANK_NICOLSON = ButcherTableau(
    name="crank_nicolson",
    aliases=("trapezoid",),
    also_called=("trapezoidal", "trapezoidal_rule", "implicit_trapezoid"),
    order=2,
    A=triangle("1/2"),
    diagonal=row("0 1/2"),
    b=row("1/2 1/2"),
    c=row("0 1"),
    source="J. Crank, P. Nicolson, A practical method for numerical evaluation of solutions of partial differential "
    "equations of the heat-conduction type, Proc. Camb. Phil. Soc. 43 (1947) 50-67",
    interpolant=Interpolant(order=2, weights=table("1 -1/2; 0 1/2")),
)

_SDIRK2_GAMMA = 1 - _SQRT2 / 2
_SDIRK2_B = (1 - _SDIRK2_GAMMA, _SDIRK2_GAMMA)

# The embedded formula takes the slope of the first stage for the whole step.
SDIRK2 = ButcherTableau(
    name="sdirk2",
    also_called=("alexander2", "sdirk22"),
    order=2,
    A=((), _SDIRK2_B[:1]),
    diagonal=(_SDIRK2_GAMMA,) * 2,
    b=_SDIRK2_B,
    c=(_SDIRK2_GAMMA, _ONE),
    b_error=difference(_SDIRK2_B, row("1 0")),
    error_order=1,
    source="R. Alexander, Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s, SIAM J. Numer. Anal. 14 (1977) "
    "1006-1021, theorem 5",
    # The quadratic that meets the two conditions of order 2, sum b_i = sigma and sum b_i c_i = sigma^2 / 2.
    interpolant=Interpolant(
        order=2,
        weights=(
            (1 / (1 - _SDIRK2_GAMMA), -_HALF / (1 - _SDIRK2_GAMMA)),
            (-_SDIRK2_GAMMA / (1 - _SDIRK2_GAMMA), _HALF / (1 - _SDIRK2_GAMMA)),
        ),
    ),
    exact=False,
)

_TRBDF2_GAMMA = 1 - _SQRT2 / 2
_TRBDF2_W = _SQRT2 / 4
_TRBDF2_B = (_TRBDF2_W, _TRBDF2_W, _TRBDF2_GAMMA)

# The embedded formula is of order 3, above that of the method, and is not A-stable.
TRBDF2 = ButcherTableau(
    name="trbdf2",
    also_called=("ode23tb",),
    order=2,
    A=((), (_TRBDF2_GAMMA,), _TRBDF2_B[:2]),
    diagonal=(Fraction(0), _TRBDF2_GAMMA, _TRBDF2_GAMMA),
    b=_TRBDF2_B,
    c=(Fraction(0), 2 * _TRBDF2_GAMMA, _ONE),
    b_error=difference(_TRBDF2_B, ((1 - _TRBDF2_W) / 3, _TRBDF2_W + Fraction(1, 3), _TRBDF2_GAMMA / 3)),
    error_order=2,
    filtered_error=True,
    source="M. E. Hosea, L. F. Shampine, Analysis and implementation of TR-BDF2, Appl. Numer. Math. 20 (1996) 21-37, "
    "dense output included; R. E. Bank et al., IEEE Trans. Electron Devices 32 (1985) 1992-2007",
    interpolant=Interpolant(order=2, weights=hermite_weights(_TRBDF2_B, rows=3, end=(2,))),
    exact=False,
)

_KVAERNO3_GAMMA = root(row("-1 9 -18 6"), near=Fraction(436, 1000))  # the one that makes it L-stable


def _kvaerno3(g: Fraction) -> ButcherTableau:
    third = ((6 * g - 4 * g**2 - 1) / (4 * g), (1 - 2 * g) / (4 * g))
    b = ((6 * g - 1) / (12 * g), 1 / (12 * g * (1 - 2 * g)), (6 * g**2 - 6 * g + 1) / (3 * (1 - 2 * g)), g)
    return ButcherTableau(
        name="kvaerno3",
        also_called=("kvaerno32",),
        order=3,
        A=((), (g,), third, b[:3]),
        diagonal=(Fraction(0), g, g, g),
        b=b,
        c=(Fraction(0), 2 * g, _ONE, _ONE),
        b_error=difference(b, (*third, g, Fraction(0))),
        error_order=2,
        source=f"{_KVAERNO}, method 3/2",
        interpolant=Interpolant(order=3, weights=hermite_weights(b, rows=4, end=(3,))),
        exact=False,
    )


_KVAERNO = (
    "A. Kvaerno, Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT Numer. Math. 44 "
    "(2004) 489-502"
)
KVAERNO3 = _kvaerno3(_KVAERNO3_GAMMA)

# Kvaerno prints 17 decimals. These are 50 digits of the solution next to them: with gamma = 0.26 and a_51 = b_1 = 0,
# the rest is determined by stage order 3 from row 2 on (2 in row 1), the order conditions of both formulas and
# R(infinity) = 0.
_KVAERNO5_B = row(
    """
    0.13659751177640291440627838441461270339212322118486 0 -0.05496908796538376712487773114648630009104670913661
    -0.041186267283210468682997769582962957415922777354993 0.62993304899016403191610603926672465348063813917828
    0.069624794482027289485491077048111900634208126128466 0.26
    """
)
_KVAERNO5_A = (
    *triangle(
        """
        0.26;
        0.13 0.8403332099679080963171360487915268154051293659907;
        0.22371961478320505591631438982905294419914212009582 0.47675532319799699832789279372708741624292406808641
        -0.064708953631126151338161611806584882826806245786761;
        0.16648564323248321525351517253604300444522128203311 0.10450018841591720411511672403289673624552689864505
        0.036314822720987151616519937582852032519086228287099 -0.13090704451073998570717496457000524018190890638164;
        0.13855640231268224950549730911615814565817662947143 0 -0.042453372017520430988843997259821685125230124213862
        0.024466578980031419659635815138791013055606344183552 0.61943039072480676182371087300487252641144715055888
        """
    ),
    _KVAERNO5_B[:6],
)

KVAERNO5 = ButcherTableau(
    name="kvaerno5",
    also_called=("kvaerno54",),
    order=5,
    A=_KVAERNO5_A,
    diagonal=row("0 0.26 0.26 0.26 0.26 0.26 0.26"),
    b=_KVAERNO5_B,
    c=(
        *row("0 0.52 1.2303332099679080963171360487915268154051293659907"),
        *row(
            "0.89576598435007590290604557174955547761525994239548 0.43639360985864758527797686958178653302792550258361"
        ),
        *row("1 1"),
    ),
    b_error=difference(_KVAERNO5_B, (*_KVAERNO5_A[5], row("0.26")[0], Fraction(0))),
    error_order=4,
    source=f"{_KVAERNO}, method 5/4; dense output: the cubic Hermite one, corrected by the multiple of sigma^2 (1 - "
    "sigma)^2 that has order 4 and the least weights",
    interpolant=Interpolant(
        order=4,
        weights=hermite_weights(
            _KVAERNO5_B,
            rows=7,
            end=(6,),
            corrections=table(
                """
                -0.48424934964585913754415538361647284313025282612446 0
                0.99217470118034618092718524228014826936429859931812
                -0.62410803310215606102294294204170465717809212275066
                1.3801004273784249335652017859557861792425373411698
                -0.63195887290537795796264435128887847414924549580641
                -0.63195887290537795796264435128887847414924549580641
                """
            ),
        ),
    ),
    exact=False,
)
