#!/usr/bin/env bash
# Every server of production on this machine, without containers: PostgreSQL, MLflow and Prefect on it, an S3 server, the
# real Milvus engine, two Ray nodes with a token, and a Prefect worker with our deployments.
#
#   infra/stack.sh FOLDER [PORT]   start it; Ctrl-C stops it. PORT is the first of twelve in a row (21000)
#   . FOLDER/env                   point the mulan, mlflow, prefect and ray of this shell at it
#
# It shows that MuLan meets real servers by configuration only, and it is for trying: the S3 server is moto's, which forgets
# everything when it stops. A stack to keep is infra/compose.yaml or infra/k8s.
set -euo pipefail
if [ $# -lt 1 ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
checkout=$(cd "$(dirname "$0")/.." && pwd)
command -v mulan >/dev/null || PATH=$checkout/.venv/bin:$PATH
mkdir -p "$1/log"
folder=$(cd "$1" && pwd)
port=${2:-21000}
postgres_port=$port s3_port=$((port + 1)) mlflow_port=$((port + 2)) prefect_port=$((port + 3)) milvus_port=$((port + 4))
etcd_port=$((port + 5)) peer_port=$((port + 6)) health_port=$((port + 7)) ray_port=$((port + 8)) dashboard_port=$((port + 9))
client_port=$((port + 10)) agent_port=$((port + 11))

say() { echo "stack: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

# Each server is a job with a process group of its own, so that Ctrl-C reaches this script alone, which stops them in order.
set -m
declare -A pid_of=()
started=()
start() { # NAME COMMAND...
  "${@:2}" >>"$folder/log/$1.log" 2>&1 </dev/null &
  pid_of[$1]=$! started+=("$1")
}
check_alive() { # NAME
  kill -0 "${pid_of[$1]}" 2>/dev/null || fail "$1 ended: $(tail -n 1 "$folder/log/$1.log"); see $folder/log/$1.log"
}
await() { # NAME COMMAND... : until the command succeeds
  local left=360
  until "${@:2}" >/dev/null 2>&1; do
    check_alive "$1"
    ((left--)) || fail "$1 does not answer after three minutes; see $folder/log/$1.log"
    sleep 0.5
  done
  say "$1 is up"
}
stop() {
  trap '' INT TERM
  exec 2>/dev/null # bash tells of each job that ends
  local i pid left
  for ((i = ${#started[@]} - 1; i >= 0; i--)); do
    pid=${pid_of[${started[i]}]}
    # By SIGINT PostgreSQL drops its clients; SIGTERM is what everybody else ends by.
    kill "-$([ "${started[i]}" = postgres ] && echo INT || echo TERM)" -- "-$pid" 2>/dev/null || continue
    for ((left = 40; left > 0; left--)); do
      kill -0 -- "-$pid" 2>/dev/null || break
      sleep 0.25
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
  done
}
trap stop EXIT
trap 'exit 0' INT TERM

for command in mulan mlflow prefect ray moto_server curl setpriv; do
  command -v "$command" >/dev/null || fail "$command is not here; run make test once (it installs what this needs), or activate its environment"
done
for ((i = port; i < port + 12; i++)); do
  ! (: <"/dev/tcp/127.0.0.1/$i") 2>/dev/null || fail "port $i is in use; give another first port: infra/stack.sh $1 PORT"
done

# Secrets are made once and stay with the folder's data.
if [ -e "$folder/secrets" ]; then
  say "S3 begins empty: models, checkpoints and data that the other servers remember are gone; a new folder is a clean start"
else
  (
    umask 077
    for name in postgres mlflow prefect milvus ray s3; do
      echo "${name}_secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    done >"$folder/secrets"
  )
fi
. "$folder/secrets"

address=$(hostname -I 2>/dev/null | cut -d' ' -f1)
(umask 077 && cat >"$folder/env") <<END
export MULAN_HOME=$folder/home
export MULAN_CHECKOUT=$checkout
export MULAN_MILVUS_URI=http://127.0.0.1:$milvus_port
export MULAN_MILVUS_TOKEN=root:$milvus_secret
export MULAN_DVC_REMOTE=s3://mulan/dvc
export MULAN_CHECKPOINTS=s3://mulan/checkpoints
export MLFLOW_TRACKING_URI=http://127.0.0.1:$mlflow_port
export PREFECT_HOME=$folder/prefect
export PREFECT_API_URL=http://127.0.0.1:$prefect_port/api
export PREFECT_API_AUTH_STRING=mulan:$prefect_secret
export RAY_ADDRESS=${address:-127.0.0.1}:$ray_port
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN=$ray_secret
export AWS_ENDPOINT_URL=http://127.0.0.1:$s3_port
export AWS_ACCESS_KEY_ID=mulan
export AWS_SECRET_ACCESS_KEY=$s3_secret
export AWS_DEFAULT_REGION=us-east-1
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export PREFECT_SERVER_ANALYTICS_ENABLED=false RAY_USAGE_STATS_ENABLED=0
END
. "$folder/env"
mkdir -p "$MULAN_HOME" "$PREFECT_HOME"

# PostgreSQL refuses to run as root.
binaries=$(pg_config --bindir 2>/dev/null || true)
[ -x "$binaries/postgres" ] || binaries=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
[ -x "$binaries/postgres" ] || fail "PostgreSQL is not here; apt-get install postgresql"
as_postgres=()
if [ "$(id -u)" = 0 ]; then
  as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)
  "${as_postgres[@]}" test -x "$folder" || fail "user postgres cannot enter $folder; give a folder that all may enter"
fi
data=$folder/postgres
if [ ! -e "$data/PG_VERSION" ]; then
  rm -rf "$data" && mkdir -m 700 "$data"
  password=$(mktemp) && echo "$postgres_secret" >"$password"
  [ "$(id -u)" != 0 ] || chown postgres "$data" "$password"
  "${as_postgres[@]}" "$binaries/initdb" -D "$data" -U postgres --auth=scram-sha-256 --pwfile="$password" -E UTF8 \
    >"$folder/log/initdb.log" 2>&1 || fail "initdb failed; see $folder/log/initdb.log"
  rm "$password"
fi
start postgres "${as_postgres[@]}" "$binaries/postgres" -D "$data" -h 127.0.0.1 -p "$postgres_port" -k ""
sql() { PGPASSWORD=$postgres_secret "$binaries/psql" -qAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$postgres_port" -U postgres "$@"; }
await postgres sql -c 'SELECT 1'
for name in mlflow prefect; do
  secret=${name}_secret
  [ -n "$(sql -c "SELECT 1 FROM pg_roles WHERE rolname = '$name'")" ] ||
    sql -c "CREATE ROLE $name LOGIN PASSWORD '${!secret}'" -c "CREATE DATABASE $name OWNER $name"
done

start s3 moto_server -H 127.0.0.1 -p "$s3_port"
await s3 curl -sf "$AWS_ENDPOINT_URL/moto-api/"
curl -sf -X PUT "$AWS_ENDPOINT_URL/mulan" >/dev/null

# The slow ones start side by side.
start milvus env COMMON_SECURITY_AUTHORIZATIONENABLED=true \
  "$checkout/infra/milvus.sh" run "$folder/milvus" "$milvus_port" "$etcd_port" "$peer_port" "$health_port"
start mlflow mlflow server --host 127.0.0.1 --port "$mlflow_port" --workers 1 \
  --backend-store-uri "postgresql+psycopg2://mlflow:$mlflow_secret@127.0.0.1:$postgres_port/mlflow" \
  --artifacts-destination s3://mulan/mlflow
start prefect env PREFECT_SERVER_API_AUTH_STRING="$PREFECT_API_AUTH_STRING" \
  PREFECT_SERVER_DATABASE_CONNECTION_URL="postgresql+asyncpg://prefect:$prefect_secret@127.0.0.1:$postgres_port/prefect" \
  prefect server start --host 127.0.0.1 --port "$prefect_port"
await prefect curl -sf -u "$PREFECT_API_AUTH_STRING" "$PREFECT_API_URL/health"

# Where that port is left to Ray 2.60, its client server (ray://) does not find the agent.
start ray ray start --head --block --node-ip-address="${RAY_ADDRESS%:*}" --port="$ray_port" --num-cpus=3 \
  --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" --ray-client-server-port="$client_port" --runtime-env-agent-port="$agent_port"
await ray ray status --address "$RAY_ADDRESS"
start ray-second ray start --block --address="$RAY_ADDRESS" --num-cpus=3

prefect --no-prompt work-pool create mulan --type process --overwrite >>"$folder/log/worker.log" 2>&1 &&
  (cd "$checkout" && prefect --no-prompt deploy --all) >>"$folder/log/worker.log" 2>&1 ||
  fail "the deployments were not made; see $folder/log/worker.log"
start worker prefect worker start --pool mulan --type process

# Milvus begins with the password that everybody knows.
await milvus curl -sf "http://127.0.0.1:$health_port/healthz"
python - <<'END' || fail "Milvus did not take its password"
import os
from pymilvus import MilvusClient, MilvusException
uri, token = os.environ["MULAN_MILVUS_URI"], os.environ["MULAN_MILVUS_TOKEN"]
try:
    MilvusClient(uri, token=token).list_collections()
except MilvusException:
    MilvusClient(uri, token="root:Milvus").update_password("root", "Milvus", token.removeprefix("root:"))
END
await mlflow curl -sf "$MLFLOW_TRACKING_URI/health"

cat <<END
Prefect  http://127.0.0.1:$prefect_port   (user and password: PREFECT_API_AUTH_STRING in $folder/env)
MLflow   $MLFLOW_TRACKING_URI
Milvus   $MULAN_MILVUS_URI
S3       $AWS_ENDPOINT_URL
Ray      $RAY_ADDRESS, ray://127.0.0.1:$client_port, dashboard http://127.0.0.1:$dashboard_port
ready: in another shell, . $folder/env
END
wait -n "${pid_of[@]}" || true
for name in "${started[@]}"; do
  check_alive "$name"
done
