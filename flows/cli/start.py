"""The console script's entry: from its first moment a command can be told to end."""

from __future__ import annotations

from flows.runtime import ending


def main() -> None:
    """Run the command."""
    try:
        ending.watch()
        from flows.cli.app import main as run  # takes a second

        run()
    except BaseException:
        ending.end_if_signalled()
        raise


if __name__ == "__main__":
    main()
