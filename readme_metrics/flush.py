"""``python -m readme_metrics.flush`` is ``readme-metrics flush``."""

from readme_metrics.cli.flush import flush_command

if __name__ == "__main__":
    flush_command()
