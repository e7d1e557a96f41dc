# Sourced by the scripts: run one step after the other, whatever became of the ones before, and sum them up.
# shellcheck shell=bash

summary=""
failed=0

# step WORDS COMMAND...
step() {
  local words=$1 began=$SECONDS verdict=ok
  shift
  say "── $words"
  "$@" || { verdict=FAILED; failed=1; }
  summary+=$(printf '  %-7s %s (%s s)' "$verdict" "$words" "$((SECONDS - began))")$'\n'
}

# The last words of a script; it exits with 1 if any step failed.
sum_up() {
  printf '\n%s' "$summary"
  if [ "$failed" = 0 ]; then say "All is well."; else say "Something failed: its words stand above."; fi
  exit "$failed"
}

# The steps that scripts/check and scripts/test share.
check_steps() {
  step "format (mend with scripts/check --fix)" "$venv/bin/python" -m ruff format --quiet --check .
  step "lint" "$venv/bin/python" -m ruff check --quiet .
  step "types" "$venv/bin/python" -m mypy --no-error-summary
  step "import rules" quietly "$venv/bin/lint-imports" --no-logo
}
