"""Print the lowest version of each dependency of the installed package, as constraints for pip."""

import re
from importlib.metadata import requires

LOWER_BOUND = re.compile(r"(?P<name>[\w.-]+)[^;]*>=\s*(?P<version>[\w.]+)")

for requirement in requires("readme-metrics") or ():
    bound = LOWER_BOUND.match(requirement)
    if bound is None:
        raise SystemExit(f"pyproject.toml gives no lower bound for {requirement!r}; write one, such as >=1.0")
    print(f"{bound['name']}=={bound['version']}")
