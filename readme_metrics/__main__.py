"""``python -m readme_metrics`` is ``readme-metrics``."""

from readme_metrics.cli import main

if __name__ == "__main__":
    main()
