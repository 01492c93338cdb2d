"""The command line: symplectic-bench, or python -m symplectic_bench."""


def main() -> None:
    # Imported here because a measuring process imports this module again as its main module, and it must never hold
    # pandas: an import would cost it seconds, and its memory is what is measured.
    from symplectic_bench.commands.app import app

    app()


if __name__ == "__main__":
    main()
