"""Four small trainings whose code is the same with torchdiffeq and with symplectic_adjoint.

    ode_demo       the field of a spiral, from short pieces of observed trajectories
    cnf            a density in the plane, with a continuous normalizing flow
    latent_ode     noisy spirals, with an encoder, an ODE in a latent space and a decoder
    bouncing_ball  gravity, restitution and initial height of a ball, from the times at which it bounces

Each module has `train(odeint_library, *, iterations, seed=0, ...)`, which returns the losses. It takes the library's
module as its argument and never checks which of the two it is: only the import changes with the library.

    python -m symplectic_bench.examples.ode_demo --library symplectic_adjoint --iterations 300
"""
