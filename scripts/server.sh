# Sourced by other scripts: a server of their own, on SQLite in a temporary folder and a free port, gone at their end.
#
#   start_server PROGRAM [MODEL [OPTION …]]    starts it, on the default base model or this folder's; sets ESPALIER_SERVER for the
#                                              client commands
#   stop_server                                stops it as an operator would; the script's end does so too
#
# The settings of whoever calls must not change what is shown.
unset "${!ESPALIER_@}" DATABASE_URL DATABASE_URL_FILE

server_folder=$(mktemp -d)
server_process=

start_server() {
  local model=${2:-models/all-MiniLM-L6-v2} data
  data=$server_folder/data/$(basename "$model")
  : >"$server_folder/log"
  "$1" serve --model "$model" --data-dir "$data" --listen 127.0.0.1:0 "${@:3}" \
    >"$server_folder/log" 2>&1 &
  server_process=$!
  local address
  for _ in $(seq 300); do
    address=$(sed -n 's/.*listening.*address=\([0-9.:]*\).*/\1/p' "$server_folder/log")
    if [ -n "$address" ]; then
      export ESPALIER_SERVER=http://$address
      return
    fi
    kill -0 "$server_process" 2>/dev/null || break
    sleep 0.2
  done
  echo "error: the server did not start:" >&2
  cat "$server_folder/log" >&2
  return 1
}

stop_server() {
  [ -n "$server_process" ] || return 0
  local process=$server_process code=0
  server_process=
  kill -TERM "$process" 2>/dev/null || true
  wait "$process" || code=$?
  if [ "$code" -ne 0 ]; then
    echo "error: the server ended with code $code:" >&2
    tail -n 20 "$server_folder/log" >&2
  fi
  return "$code"
}

# Ends with the code that is given, or that of the last command: a trap that runs other commands before has to keep it.
server_cleanup() {
  local code=${1:-$?}
  trap - EXIT INT TERM
  if [ "$code" -ge 128 ]; then
    # Ctrl-C reached the server too: it is stopping already, and the second signal makes it quick.
    { kill -TERM "$server_process" && wait "$server_process"; } 2>/dev/null || true
  else
    stop_server || code=1
  fi
  rm -rf "$server_folder"
  exit "$code"
}
trap server_cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
