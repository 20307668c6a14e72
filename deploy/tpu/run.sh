#!/usr/bin/env bash
# Runs on a TPU VM, in a container that keeps running when the connection is closed:
#   run.sh host  IMAGE                  on every host of a slice: TensorFlow's server for its chips
#   run.sh start IMAGE ARGUMENT...      on worker 0: clozemill ARGUMENT... on all chips, with TensorFlow
#   run.sh worker IMAGE ARGUMENT...     on every host: clozemill ARGUMENT..., with JAX, which joins the hosts of a slice
#   run.sh follow                       print the log from its start; return the exit code of the training
#   run.sh state                        print "running 0", or "exited" and the exit code
#   run.sh stop                         send SIGTERM, so that training saves a checkpoint
set -euo pipefail

readonly libtpu=/usr/local/lib/python3.11/site-packages/libtpu/libtpu.so
readonly attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes

start() {
    local name="$1"
    shift
    sudo docker rm --force "$name" > /dev/null 2>&1 || true
    sudo docker run --detach --name "$name" --privileged --network=host --stop-timeout=30 "$@" > /dev/null
}

attribute() {
    curl --silent --fail --header 'Metadata-Flavor: Google' "$attributes/$1"
}

# Print the address of each host of the slice, one per line. The attribute is "…:…:ADDRESS,…", or on newer VMs "ADDRESS,…".
hosts() {
    attribute worker-network-endpoints | tr ',' '\n' | awk -F: 'NF { print $NF }'
}

case "${1:-}" in
    host)
        start clozemill-host --env=NEXT_PLUGGABLE_DEVICE_USE_C_API=true --env=TF_PLUGGABLE_DEVICE_LIBRARY_PATH="$libtpu" \
            --entrypoint=start_grpc_tpu_worker "${2:?IMAGE is missing}"
        ;;
    start)
        image="${2:?IMAGE is missing}"
        shift 2
        endpoints="$(hosts | awk '{ list = list (NR > 1 ? "," : "") "grpc://" $0 ":8470" } END { if (NR > 1) print list }')"
        type="$(attribute accelerator-type)" # MFU needs the peak rate of the chips, whose name TensorFlow doesn't tell
        start clozemill --env=TPU_NAME="${endpoints:-local}" --env=TPU_ACCELERATOR_TYPE="$type" "$image" "$@"
        ;;
    worker)
        image="${2:?IMAGE is missing}"
        shift 2
        addresses="$(hosts)"
        count="$(wc --lines <<< "$addresses")"
        slice=()
        if [ "$count" -gt 1 ]; then
            number="$(attribute agent-worker-number)"
            slice=("--env=JAX_COORDINATOR_ADDRESS=${addresses%%$'\n'*}:8482")
            slice+=("--env=JAX_NUM_PROCESSES=$count" "--env=JAX_PROCESS_ID=$number")
        fi
        start clozemill "${slice[@]}" "$image" "$@"
        ;;
    follow)
        sudo docker logs --follow clozemill
        exit "$(sudo docker wait clozemill)"
        ;;
    state)
        sudo docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' clozemill
        ;;
    stop)
        sudo docker stop clozemill
        ;;
    *)
        echo "usage: run.sh host|start|worker|follow|state|stop" >&2
        exit 2
        ;;
esac
