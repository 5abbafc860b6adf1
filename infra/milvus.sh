#!/usr/bin/env bash
# The real Milvus engine (standalone, 2.3.5) on 127.0.0.1 without a container, for tests and for infra/stack.sh.
#
#   infra/milvus.sh install                        into a folder of its own, once
#   infra/milvus.sh run DATA PORT ETCD PEER HEALTH becomes the engine; DATA keeps its state, the rest are ports
set -euo pipefail
engine=${MULAN_MILVUS_ENGINE:-${XDG_CACHE_HOME:-$HOME/.cache}/mulan/milvus-2.3.5}

install() {
  [ -e "$engine/.installed" ] && return
  "${PYTHON:-python3}" -m venv --clear "$engine"
  # It asks for setuptools, whose newest releases have dropped what it imports.
  "$engine/bin/python" -m pip install -q milvus==2.3.5 'setuptools<81'
  "$engine/bin/python" -c 'import milvus, sys; milvus._initialize_data_files(sys.argv[1])' "$engine/engine"
  touch "$engine/.installed"
}

run() {
  local data=$1 port=$2 etcd=http://127.0.0.1:$3 peer=http://127.0.0.1:$4
  mkdir -p "$data"
  cd "$data"
  cat >etcd.yaml <<END
listen-client-urls: $etcd
advertise-client-urls: $etcd
listen-peer-urls: $peer
initial-advertise-peer-urls: $peer
initial-cluster: default=$peer
END
  "$engine/bin/python" - "$PWD" "$port" "$3" <<'END'
import socket
import sys
import milvus
data, proxy_port, etcd_port = sys.argv[1:]
config = milvus.MilvusServerConfig(data_dir=data, proxy_port=proxy_port, etcd_port=etcd_port)
config.try_bind_port = lambda port: socket.socket()  # its own try takes a port that was closed a moment ago for a taken one
config.resolve()
END
  # Not the package's own milvus-server: it would leave the engine behind when it is killed.
  export DEPLOY_MODE=STANDALONE MILVUS_RUN_DIR=$PWD/run ETCD_CONFIG_PATH=$PWD/etcd.yaml METRICS_PORT=$5
  LD_LIBRARY_PATH=$engine/engine/bin exec "$engine/engine/bin/milvus" run standalone
}

case "${1:-}" in
install) install ;;
run)
  install
  run "${@:2}"
  ;;
*)
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
