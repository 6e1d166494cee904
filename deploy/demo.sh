#!/usr/bin/env bash
# The whole system on one machine: three memory nodes with two copies of each row, one compute engine, a real text; then a
# load on the nodes, one of which is killed meanwhile and comes back.
#
#   deploy/demo.sh [--stay] [TEXT-FILE]     default: the life of a row, from this repository's documentation
#
# --stay keeps the cluster and the engine's page up at the end, until Ctrl-C.
# Installs what is missing, builds, checks that the answer over the network is bit for bit the answer with the tables
# in the process, and cleans up after itself, also on Ctrl-C. Exits non-zero when any check fails.
set -euo pipefail
cd "$(dirname "$0")/.."

stay=0
if [ "${1:-}" = --stay ]; then stay=1; shift; fi
text=${1:-memnode/README.md}
tokens=64                      # generated tokens that must agree
prompt_bytes=1500              # of the text; the small model's prefill takes some seconds on two cores
model=build/demo/small-1
bin=build/release/bin
[ -r "$text" ] || { echo "demo: cannot read $text" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/engram-demo.XXXXXX")
nodes=()
cleanup() {
  trap - EXIT INT TERM
  for pid in "${nodes[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${nodes[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT TERM

# Runs a quiet step; its output is shown only when it fails. In there `set -e` does not hold: chain with &&.
step() {
  local what=$1; shift
  printf '%-64s' "$what ..."
  local begin=$SECONDS
  if ! "$@" >"$work/step.log" 2>&1; then
    echo "FAILED"; tail -n 15 "$work/step.log" >&2; exit 1
  fi
  echo "$((SECONDS - begin)) s"
}

build() {
  cmake --preset release &&
    cmake --build --preset release --target engramctl engram-memnode engram-compute engram-load
}
make_model() {
  [ -e "$model/.complete" ] && return
  rm -rf "$model" build/demo/store-*
  "$bin/engramctl" make-model --preset small --seed 1 --out "$model" &&
    touch "$model/.complete"
}

step "packages" deploy/install-deps.sh
step "build (the first takes minutes)" build
step "model: 0.5 GB of Engram tables, seeded weights" make_model

start_node() {  # name, address
  # The nodes share the engine's cores here: no polling.
  "$bin/engram-memnode" --set node.name="$1" --set transport.spin_us=0 --set cluster.members=m0,m1,m2 \
    --set cluster.replicas=2 --set model.path="$model" --set store.path="build/demo/store-$1" \
    --set control.listen="${2:-127.0.0.1:0}" --set http.listen=127.0.0.1:0 >"$work/$1.out" 2>"$work/$1.err" &
  nodes+=($!)
}
wait_ready() {  # name, pid
  for _ in $(seq 600); do
    grep -q '^ready ' "$work/$1.out" && return
    kill -0 "$2" 2>/dev/null || { cat "$work/$1.err"; return 1; }
    sleep 0.1
  done
  echo "memory node $1 not ready after 60 s"; return 1
}
address() { sed -n 's/^ready .*control=\([^ ]*\).*/\1/p' "$work/$1.out"; }

start_node m0; start_node m1; start_node m2
step "memory node m0: folder -> RocksDB (once) -> DRAM" wait_ready m0 "${nodes[0]}"
step "memory node m1" wait_ready m1 "${nodes[1]}"
step "memory node m2" wait_ready m2 "${nodes[2]}"
memnodes=$(address m0),$(address m1),$(address m2)

head -c "$prompt_bytes" "$text" | iconv -c -f UTF-8 -t UTF-8 >"$work/prompt.txt" || true
generate() {  # name, where...
  local name=$1; shift
  "$bin/engram-compute" generate --model "$model" "$@" --prompt-file "$work/prompt.txt" \
    --max-tokens $tokens --ignore-eos --temperature 0.7 --seed 1 --json "$work/$name.json" >"$work/$name.txt"
}
score() {  # name, where...
  local name=$1; shift
  "$bin/engram-compute" score --model "$model" "$@" --input "$work/tokens.jsonl" --output "$work/$name.jsonl"
}
both() {
  generate remote --memnodes "$memnodes" && generate local --local
}
step "generate $tokens tokens, rows from the memory nodes, then local" both

echo
echo "completion (random weights, so not sense; $text as prompt):"
jq -r '"  " + (.text | gsub("[\\s\\p{Cc}]+"; " "))[:160]' "$work/remote.json"
echo
jq -r '
  def k: tostring | if length > 3 then .[:-3] + "," + .[-3:] else . end;
  "tokens/s       prefill \(.prefill_tokens_per_s*10|round/10)   decode \(.decode_tokens_per_s*10|round/10)   (\(.prompt_tokens) prompt tokens, \(.tokens|length) generated)",
  "rows           asked \(.rows_asked|k)   distinct \(.rows_distinct|k)   fetched " + ([.nodes[]|"\(.name) \(.rows_fetched|k)"]|join("   ")),
  "exposed wait   " + ([.layers[]|"layer \(.layer_id): \(.exposed_wait_us|round) us (\(.exposed_wait_share*1000000|round/10000) % of step time)"]|join("   "))
' "$work/remote.json"

failed=0
check() {  # what, command...
  local what=$1; shift
  if "$@"; then printf '%-70s ok\n' "$what"; else printf '%-70s FAILED\n' "$what"; failed=1; fi
}
jq -c '{tokens: .tokens}' "$work/remote.json" >"$work/tokens.jsonl"
score remote-score --memnodes "$memnodes"
score local-score --local
same() { [ "$(jq -c .tokens,.logprobs "$work/remote.json")" = "$(jq -c .tokens,.logprobs "$work/local.json")" ] &&
  [ "$(jq '.tokens|length' "$work/remote.json")" -ge $tokens ]; }
check "remote answer == in-process answer, $tokens tokens and log-probabilities" same
check "remote scores == in-process scores, byte for byte" cmp -s "$work/remote-score.jsonl" "$work/local-score.jsonl"

echo
echo "lookup load, closed loop, 5 s, every row compared with the checkpoint:"
"$bin/engram-load" --model "$model" --memnodes "$memnodes" --seconds 5 --json "$work/load.json" | sed 's/^/  /' || failed=1
no_wrong_rows() { jq -e '.wrong_rows == 0 and .errors == 0 and .verified_rows > 0' "$work/load.json" >/dev/null; }
check "no wrong row, no error" no_wrong_rows

echo
echo "a node is killed while text is generated and an open-loop load runs, and comes back:"
m1=$(address m1)
"$bin/engram-load" --model "$model" --memnodes "$memnodes" --lookup-path gather --rate 100 --seconds 12 \
  --json "$work/lost.json" >"$work/lost.out" 2>&1 &
load=$!
generate through --memnodes "$memnodes" --set lookup.path=gather &
text_pid=$!
sleep 3
kill -KILL "${nodes[1]}"
wait "${nodes[1]}" 2>/dev/null || true
sleep 2
start_node m1 "$m1"
step "m1 killed; started again" wait_ready m1 "${nodes[-1]}"
wait "$text_pid" || failed=1
wait "$load" || true           # that its latencies are the machine's own is no failure here
jq -r '"  \(.steps_due) lookups: \(.errors) failed lookups, worst stall \(.worst_stall_us / 1000 | round) ms; \(.failovers) failovers, " +
  "\(.hedges_won) of \(.hedges_sent) hedges won, \(.reconnects) reconnects"' "$work/lost.json"
no_lookup_failed() { jq -e '.wrong_rows == 0 and .errors == 0 and .verified_rows > 0 and .reconnects == 1' "$work/lost.json" >/dev/null; }
check "no lookup failed, no row was wrong, m1 is used again" no_lookup_failed
same_as_quiet() { [ "$(jq -c .tokens,.logprobs "$work/through.json")" = "$(jq -c .tokens,.logprobs "$work/local.json")" ]; }
check "the text is the same as without a loss" same_as_quiet

echo
"$bin/engram-compute" serve --model "$model" --memnodes "$memnodes" --set api.listen=127.0.0.1:0 \
  >"$work/serve.out" 2>"$work/serve.err" &
nodes=("$!" "${nodes[@]}")     # ended first
wait_serving() {
  for _ in $(seq 300); do
    grep -q '^ready ' "$work/serve.out" && return
    kill -0 "${nodes[0]}" 2>/dev/null || { cat "$work/serve.err"; return 1; }
    sleep 0.1
  done
  return 1
}
step "engine behind OpenAI's API" wait_serving
api=http://$(sed -n 's/^ready http=\([^ ]*\).*/\1/p' "$work/serve.out")
jq -Rs '{prompt: ., max_tokens: '$tokens', ignore_eos: true, temperature: 0.7, seed: 1}' "$work/prompt.txt" >"$work/ask.json"
for i in 1 2 3 4; do curl -sf "$api/v1/completions" -d @"$work/ask.json" -o "$work/answer.$i.json" & asked[i]=$!; done
for i in 1 2 3 4; do wait "${asked[i]}" || failed=1; done
same_text() { for i in 1 2 3 4; do
  [ "$(jq -c '.choices[0].text' "$work/answer.$i.json")" = "$(jq -c .text "$work/remote.json")" ] || return 1; done; }
check "four requests at once == the one alone, text for text" same_text
if [ $stay = 1 ]; then
  echo; echo "chat and plots: $api/    (Ctrl-C ends everything)"
  wait "${nodes[0]}" || true
fi
exit $failed
