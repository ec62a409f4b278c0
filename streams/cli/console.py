"""``salience console``: the live page."""

import asyncio

from streams.cli.ending import until_told
from streams.cli.options import Bootstrap, Group, Host, LogJson, Model, PollEvery, Port, Prefix, StuckAfter, settings_of

EPILOG = "Example: salience console --port 9310"


def console(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    group: Group = None,
    model: Model = None,
    host: Host = None,
    port: Port = 9310,
    every: PollEvery = 1,
    stuck_after: StuckAfter = 10.0,
    log_json: LogJson = False,
) -> None:
    """Serve the live console until stopped: throughput, latency, lag, click rates, campaigns, models, "why this ad?".

    It reads the topics and asks the brokers for the lag; it joins no group and
    needs no worker. It shows what people did: on loopback to everyone on this
    machine, beyond it to everyone who has SALIENCE_WEB_TOKEN. Exit status 1 if
    it cannot listen, or a topic is missing.
    """
    import structlog

    from streams.console import serve as server
    from streams.lag.arithmetic import Rules
    from streams.lag.monitor import LagMonitor
    from streams.lag.poller import Poller
    from streams.log_lines import configure_logging

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, group=group, model=model, web_host=host)
    configure_logging(log_json=log_json)
    log = structlog.get_logger()
    monitor = LagMonitor(
        Poller(settings.bootstrap, [settings.group], settings.topic_prefix),
        Rules(stuck_ms=round(1000 * stuck_after)),
        every,
        failing=lambda why: log.warning("the lag is not told", error=why),
    )

    def ready(url: str) -> None:
        log.info("serving", console=f"{url}/")

    # Cancelled also while it starts: a broker that does not answer is waited for then.
    asyncio.run(until_told(server.serve(settings, monitor, port, ready)))
