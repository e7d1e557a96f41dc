"""readme-metrics: the API logger that never loses a log.

::

     an HTTP request in the host app
            │
     1 CAPTURE    flask_readme  capture                     wraps app.wsgi_app: environ, status, headers, bodies
                  environ  body  ids                        ─► Exchange
     2 ENTRY      exchange  group  redaction  json_splice   Exchange + group ─► entry (bytes)
                  text  media  forms  shown  wire  entry
                  recorder  pipeline                        join 2 ► 3 ► 5, one pipeline per queue file and process
     3 QUEUE      queue/                                    put · claim · ack · release · bury
     4 DELIVERY   verdict  deadline  sender  delivery       list of entries ─► one POST ─► Outcome
     5 FLUSHER    in_flight  drain                          the loop
                  flusher  inline_flusher                   the thread, or the request itself
     6 FACE       cli/  flush  __main__  flask_cli          what a person runs
                  inspector/                                and looks at
     beside       config  guard  forks  patching  errors  VerifyWebhook

The request thread walks 1 → 2 → 3 once and returns. The flusher thread, or the command line, walks 3 → 4 → 3. The two
walks meet only in the queue.
"""

from readme_metrics.config import MetricsApiConfig

__all__ = ["MetricsApiConfig", "__version__"]
__version__ = "4.0.0"
