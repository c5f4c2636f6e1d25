"""`python -m gateway` is the console script `dhp-gateway`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
