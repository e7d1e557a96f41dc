"""readme-metrics: the API logger that never loses a log.

::

     an HTTP request in the host app
            │
     1 CAPTURE    flask_readme                       wraps app.wsgi_app: environ, status, headers, body ─► Exchange
     2 ENTRY      exchange  group  body  redaction  entry    Exchange + group ─► entry (bytes)
                  recorder                           joins 2 ► 3 ► 5, one per queue file and process
     3 QUEUE      queue/                             put · claim · ack · release · bury
     4 DELIVERY   verdict  delivery                  list of entries ─► one POST ─► Outcome
     5 FLUSHER    drain (the loop)  flusher (the thread)
     6 FACE       flush  __main__  cli  flask_cli  inspector/     what a person runs and looks at
     beside       config  guard  errors  VerifyWebhook

The request thread walks 1 → 2 → 3 once and returns. The flusher thread, or the command line, walks 3 → 4 → 3. The two
walks meet only in the queue.
"""

from readme_metrics.config import MetricsApiConfig

__all__ = ["MetricsApiConfig", "__version__"]
__version__ = "4.0.0"
