#!/bin/sh
# A small tracker in a file of JSON lines, with the fault FAULT: adapter.sh STORE WHAT …
cd "$1" && exec 9> lock || exit 1
is() { [ "$FAULT" = "$1" ]; }
record() { printf '{"id":%s,"text":"%s"}\n' "$n" "$1"; }
next() { echo $(($(cat log 2> /dev/null | wc -l) + 1)); }
# Nor do the zero bytes of a torn write end a line; the shell would drop them.
ends() { [ -z "$(tail -c 1 log 2> /dev/null | tr '\0' 0)" ]; }
lines() { grep -ax '{"id":[0-9]*,"text":"[^"]*"}' log; }
case $2 in
append)
  is same-id && n=$(next) && sleep 0.002
  is no-lock || flock 9
  is torn-tail || ends || echo >> log
  # The number of its line, where a follower goes on.
  is same-id || n=$(next)
  # In two parts, as any long write may be.
  line=$(record "$3")
  printf '%s' "${line%"${line#??????}"}" >> log
  sleep 0.001
  printf '%s\n' "${line#??????}" >> log
  is no-sync || sync log . || exit 1
  echo "$n" ;;
batch)
  shift 2
  flock 9
  ends || echo >> log
  n=$(next)
  if is half-batch; then
    for text; do record "$text" >> log; n=$((n + 1)); sleep 0.001; done
  else
    for text; do record "$text"; n=$((n + 1)); done > new
    cat new >> log
  fi
  sync log . || exit 1 ;;
list) lines; : ;;
claim)
  is two-win || flock 9
  [ ! -e "owner-$3" ] || exit 9
  sleep 0.002
  echo "$4" > "owner-$3" ;;
show) cat "owner-$3" ;;
export)
  flock 9
  lines > all
  new=$3.new
  is cut-export && new=$3
  { head -c 70 all; sleep 0.002; tail -c +71 all; } > "$new"
  [ "$new" = "$3" ] || mv "$new" "$3" ;;
follow)
  if is part-of-follower; then part='5~7d'; else part=; fi
  from=$3
  is skips-on-resume && [ "$from" -gt 9 ] && from=$((from + 1))
  tail -n "+$from" -F log 2> /dev/null | sed -u "$part" ;;
esac
