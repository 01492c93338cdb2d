"""Small trainings, each a script: python -m symplectic_bench.examples.NAME --iterations 300

The code of these four is the same with torchdiffeq and with symplectic_adjoint, chosen by --library; only the import
changes:

    ode_demo          the field of a spiral, from short pieces of observed trajectories
    cnf               a density in the plane, with a continuous normalizing flow
    latent_ode        noisy spirals, with an encoder, an ODE in a latent space and a decoder
    bouncing_ball     gravity, restitution and initial height of a ball, from the times at which it bounces

Each of these has `train(odeint_library, *, iterations, seed=0, ...)`, which returns the losses. It takes the library's
module as its argument and never checks which of the two it is.

With this library, and a figure at the end (--figure FILE):

    digits_flow       a flow on images of digits, with samples drawn from it
    flow_matching     the likelihood of a flow-matching model, exact or by Hutchinson's trace, and its gradient
    kdv_energy        the energy of the Korteweg-de Vries equation, learned from moving waves
    irregular_series  series observed at irregular times, each at its own, by an ODE in a latent space
    stiff_fit         the rates of a stiff pharmacokinetic model
    classifier        an image classifier whose middle is an ODE

Each of these has `train(*, iterations, seed=0, ...)`, whose result has the losses, and `draw(figure, result)`.
"""
