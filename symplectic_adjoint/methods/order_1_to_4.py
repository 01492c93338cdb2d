"""The methods of orders 1 to 4."""

from dataclasses import replace

from symplectic_adjoint.methods.coefficients import difference, row, table, triangle
from symplectic_adjoint.methods.interpolant import Interpolant
from symplectic_adjoint.methods.tableau import ButcherTableau

EULER = ButcherTableau(
    name="euler",
    also_called=("explicit_euler", "forward_euler", "rk1"),
    order=1,
    A=((),),
    b=row("1"),
    c=row("0"),
    source="L. Euler, Institutionum calculi integralis 1 (1768), section 650",
    interpolant=Interpolant(order=1, weights=table("1")),
)

MIDPOINT = ButcherTableau(
    name="midpoint",
    also_called=("explicit_midpoint", "modified_euler", "rk2"),
    order=2,
    A=triangle("1/2"),
    b=row("0 1"),
    c=row("0 1/2"),
    source="C. Runge, Ueber die numerische Aufloesung von Differentialgleichungen, Math. Ann. 46 (1895) "
    "167-178; dense output: M. Zennaro, Natural continuous extensions of Runge-Kutta methods, Math. "
    "Comp. 46 (1986) 119-133",
    interpolant=Interpolant(order=2, weights=table("1 -1; 0 1")),
)

# The explicit trapezoidal rule.
HEUN2 = ButcherTableau(
    name="heun2",
    also_called=("heun", "explicit_trapezoid", "improved_euler"),
    order=2,
    A=triangle("1"),
    b=row("1/2 1/2"),
    c=row("0 1"),
    source="K. Heun, Neue Methoden zur approximativen Integration der Differentialgleichungen einer "
    "unabhaengigen Veraenderlichen, Z. Math. Phys. 45 (1900) 23-38; dense output: Zennaro (1986)",
    interpolant=Interpolant(order=2, weights=table("1 -1/2; 0 1/2")),
)

ADAPTIVE_HEUN = replace(
    HEUN2,
    name="adaptive_heun",
    also_called=("heun_euler", "rk12"),
    b_error=difference(HEUN2.b, row("1 0")),
    error_order=1,
    source=f"{HEUN2.source}; error estimate: Euler's method",
)

# Propagates the formula of order 2; the one of order 1 estimates its error. That one almost has order 2 itself: its
# error, and so the estimate, is only h^2 / 512 times the second derivative. Steps become so long that the solution is
# tens of tolerances off, at every tolerance.
FEHLBERG2 = ButcherTableau(
    name="fehlberg2",
    also_called=("fehlberg", "rkf12"),
    order=2,
    A=triangle("1/2; 1/256 255/256"),
    b=row("1/512 255/256 1/512"),
    c=row("0 1/2 1"),
    b_error=difference(row("1/512 255/256 1/512"), row("1/256 255/256 0")),
    error_order=1,
    source="E. Fehlberg, Low-order classical Runge-Kutta formulas with stepsize control and their "
    "application to some heat transfer problems, NASA TR R-315 (1969), RK1(2)",
)

HEUN3 = ButcherTableau(
    name="heun3",
    also_called=("rk3",),
    order=3,
    A=triangle("1/3; 0 2/3"),
    b=row("1/4 0 3/4"),
    c=row("0 1/3 2/3"),
    source="K. Heun, Z. Math. Phys. 45 (1900) 23-38",
)

BOSH3 = ButcherTableau(
    name="bosh3",
    also_called=("rk23", "bs3", "bs23", "ode23", "bogacki_shampine"),
    order=3,
    A=triangle("1/2; 0 3/4; 2/9 1/3 4/9"),
    b=row("2/9 1/3 4/9 0"),
    c=row("0 1/2 3/4 1"),
    b_error=difference(row("2/9 1/3 4/9 0"), row("7/24 1/4 1/3 1/8")),
    error_order=2,
    source="P. Bogacki, L. F. Shampine, A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2 (1989) 321-325",
)

# The dense output of both methods of order 4 satisfies the order conditions up to 3 with the four stages alone.

RK4 = ButcherTableau(
    name="rk4",
    also_called=("runge_kutta", "runge_kutta_4", "classic_rk4"),
    order=4,
    A=triangle("1/2; 0 1/2; 0 0 1"),
    b=row("1/6 1/3 1/3 1/6"),
    c=row("0 1/2 1/2 1"),
    source="W. Kutta, Beitrag zur naeherungsweisen Integration totaler Differentialgleichungen, Z. Math. "
    "Phys. 46 (1901) 435-453, the classic rule; dense output: Zennaro (1986)",
    interpolant=Interpolant(order=3, weights=table("1 -3/2 2/3; 0 1 -2/3; 0 1 -2/3; 0 -1/2 2/3")),
)

RK38 = ButcherTableau(
    name="rk38",
    also_called=("rk4_38", "three_eighths"),
    order=4,
    A=triangle("1/3; -1/3 1; 1 -1 1"),
    b=row("1/8 3/8 3/8 1/8"),
    c=row("0 1/3 2/3 1"),
    source="W. Kutta, Z. Math. Phys. 46 (1901) 435-453, the 3/8 rule; dense output: Zennaro (1986)",
    interpolant=Interpolant(order=3, weights=table("1 -15/8 1; 0 15/8 -3/2; 0 3/8 0; 0 -3/8 1/2")),
)
