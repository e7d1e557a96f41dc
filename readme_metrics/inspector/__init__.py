"""A local stand-in for ReadMe's server, with a page that shows what arrives.

It answers one question before anything leaves a host: "what exactly leaves my server?" It listens on 127.0.0.1 only,
takes ``POST /v1/request`` as ReadMe does, keeps the newest entries in bounded memory and writes nothing to disk.

::

    wire      what ReadMe takes, checked field by field        pure
    har       kept entries as one HAR log                      pure
    access    who may ask: loopback hosts, no page from elsewhere    pure
    outage    the switch that plays an outage
    desk      what arrived, the figures, the last minutes; everything under one lock
    routes    HTTP over the desk
    server    sockets and threads, started and left behind clean
    static/   the page
"""

from readme_metrics.inspector.server import Inspector, make_server, serve

__all__ = ["Inspector", "make_server", "serve"]
