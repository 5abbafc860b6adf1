"""``mulan demo``: the whole flow on the demo corpus, three searches, the addresses, then it serves."""

from __future__ import annotations

import shlex
import time
from typing import NoReturn

from flows.cli.reporting import show_evaluation, show_gate, show_hits, show_stages
from flows.runtime import ending
from flows.runtime.session import Session, open_session
from flows.runtime.terminal import console, words
from mulan_core.errors import UserError
from serving.client import MulanClient

QUERIES = ("calm piano", "fast aggressive heavy metal with electric guitar", "happy reggae")


def run_demo(*, leave: bool, size: int | None, port: int | None) -> None:
    """Run the flow and serve until Ctrl-C, or with ``leave`` until the check queries are answered.

    Raises:
        UserError: if another demo runs, the port is taken, or a check query comes back empty.
    """
    with open_session(size=size, port=port, join=False, demo=True, ahead="flows.pipeline.end_to_end") as session:
        from flows.pipeline.end_to_end import end_to_end

        result = end_to_end()
        show_evaluation(result["evaluate"])
        gate = result["register"]
        show_gate(gate)
        if not gate["passed"]:
            raise UserError("the gate refused the demo's model, so there is nothing new to serve (reasons above)")
        client = MulanClient(result["serve"]["url"], key=session.settings.key)
        for query in QUERIES:
            answer = client.search_text(query, k=5)
            if not answer["hits"]:
                raise UserError(f"the check query {query!r} found nothing at {result['serve']['url']}")
            show_hits(query, answer)
        show_stages(result["stages"], result["seconds"])
        print_addresses(result["serve"]["url"], session)
        if not leave:
            wait_for_interrupt()


def print_addresses(url: str, session: Session) -> None:
    """Print where everything is."""
    home = session.settings.home
    for what, where in (
        (f"MuLan is serving {session.catalogue.name}", ""),
        ("search page", f"{url}/"),
        ("API docs", f"{url}/docs"),
        ("from a shell", f'mulan search "calm piano" --catalogue {session.catalogue.name}'),
        ("experiments", "mulan ui"),
        ("flow runs", f"PREFECT_HOME={shlex.quote(str(home / 'prefect'))} prefect server start"),
    ):
        console.print(f"  {what:<14}{where}" if where else words((what, "bold")))


def wait_for_interrupt() -> NoReturn:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        KeyboardInterrupt: then, and at once where one came already and was swallowed.
    """
    console.print("Ctrl-C stops it")
    while True:
        ending.check()
        time.sleep(0.5)
