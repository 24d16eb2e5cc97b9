"""`python -m pipeline`, installed as `staged-ulmfit`."""


def main() -> None:
    """Run the command line."""
    from pipeline import cli  # not above: worker processes import this module too, and need nothing of it

    cli.main()


if __name__ == "__main__":
    main()
