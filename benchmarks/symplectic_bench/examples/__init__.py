"""Four small trainings that are the same code with torchdiffeq and with symplectic_adjoint.

    ode_demo       the field of a spiral, from pieces of observed trajectories
    cnf            a density in the plane, by a continuous normalizing flow
    latent_ode     noisy spirals, by an encoder, an ODE in a latent space and a decoder
    bouncing_ball  gravity, restitution and height of a ball, from the times at which it bounces

Each module has `train(odeint_library, *, iterations, seed=0, ...)`, which returns the losses. The library is the module
itself, and `train` never asks which of the two it was given: changing the import is all that a change of library takes.

    python -m symplectic_bench.examples.ode_demo --library symplectic_adjoint --iterations 300
"""
