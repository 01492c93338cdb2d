"""The methods of order 5. Both are FSAL: their last row is f at the end of the step."""

from symplectic_adjoint.methods.coefficients import difference, row, table, triangle
from symplectic_adjoint.methods.interpolant import Interpolant, hermite_weights
from symplectic_adjoint.methods.tableau import ButcherTableau

_DOPRI5_B = row("35/384 0 500/1113 125/192 -2187/6784 11/84 0")

DOPRI5 = ButcherTableau(
    name="dopri5",
    also_called=("dopri", "rk45", "rk5", "ode45", "dp5", "dopri45", "dopri54", "dormand_prince", "rkdp"),
    order=5,
    A=(
        *triangle(
            """
            1/5;
            3/40 9/40;
            44/45 -56/15 32/9;
            19372/6561 -25360/2187 64448/6561 -212/729;
            9017/3168 -355/33 46732/5247 49/176 -5103/18656
            """
        ),
        _DOPRI5_B[:-1],
    ),
    b=_DOPRI5_B,
    c=row("0 1/5 3/10 4/5 8/9 1 1"),
    b_error=difference(_DOPRI5_B, row("5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40")),
    error_order=4,
    source="J. R. Dormand, P. J. Prince, A family of embedded Runge-Kutta formulae, J. Comput. Appl. Math. "
    "6 (1980) 19-26; dense output: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary "
    "Differential Equations I (2nd ed., 1993), section II.6, and their code DOPRI5",
    interpolant=Interpolant(
        order=4,
        weights=hermite_weights(
            _DOPRI5_B,
            rows=7,
            corrections=table(
                """
                -12715105075/11282082432 0 87487479700/32700410799 -10690763975/1880347072
                701980252875/199316789632 -1453857185/822651844 69997945/29380423
                """
            ),
        ),
    ),
)

# Tsitouras' coefficients to 34 digits. He prints the dense weights to 16-19 digits only, but those of the last row
# are terminating decimals, from which the order conditions up to 4 determine all the others. The weights below solve
# those conditions and agree with the printed ones to 1e-16.
_TSIT5_B = row(
    """
    0.09646076681806522951816731316512876 0.01 0.4798896504144995747752495322905965
    1.379008574103741893192274821856873 -3.290069515436080679901047585711364
    2.324710524099773982415355918398766 0
    """
)

TSIT5 = ButcherTableau(
    name="tsit5",
    also_called=("tsit", "tsitouras", "tsit45"),
    order=5,
    A=(
        *triangle(
            """
            0.161;
            -8.480655492356988544426874250230775e-3 0.3354806554923569885444268742502308;
            2.897153057105493432130432594192939 -6.359448489975074843148159912383826
            4.362295432869581411017727318190887;
            5.325864828439256604428877920840511 -11.74888356406282787774717033978577
            7.495539342889836208304604784564358 -0.09249506636175524925650207933207192;
            5.861455442946420028659251486982648 -12.92096931784710929170611868178336
            8.159367898576158643180400794539253 -0.07158497328140099722453054252582974
            -0.02826905039406838290900305721271224
            """
        ),
        _TSIT5_B[:-1],
    ),
    b=_TSIT5_B,
    c=row("0 0.161 0.327 0.9 0.9800255409045096857298102862870246 1 1"),
    b_error=difference(
        _TSIT5_B,
        row(
            """
            0.09468075576583945807478876255758923 9.183565540343253096776363936645314e-3
            0.4877705284247615707855642599631228 1.234297566930478985655109673884238
            -2.707712349983525454881109975059322 1.866628418170587035753719399566211 1/66
            """
        ),
    ),
    error_order=4,
    source="Ch. Tsitouras, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying "
    "assumption, Comput. Math. Appl. 62 (2011) 770-775",
    interpolant=Interpolant(
        order=4,
        weights=table(
            """
            1 -2.763706197274825868672988363027682 2.91325546182191265541864597871588
            -1.053088497729021557227490302523069;
            0 0.1317 -0.2234 0.1017;
            0 3.930296236894751517409293669459985 -5.941033872131504735717589209757585
            2.490627285651252793083545072588196;
            0 -12.41107716693367703873047339671185 30.3381886302823216502300460808512
            -16.54810288924490271830729786228247;
            0 37.50931341651103917897843911106474 -88.17890489476640107756106856497494
            47.37952196281928121868158186819883;
            0 -27.89652628919728778898427102078519 65.09189467479367150762996571516544
            -34.87065786149660973623033877598149;
            0 1.5 -4 2.5
            """
        ),
    ),
    exact=False,
)
