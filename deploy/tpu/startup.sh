#!/usr/bin/env bash
# Prepares a TPU VM. Run on every host: bash startup.sh IMAGE. Pulls the image with the VM's service account.
set -euo pipefail

image="${1:?usage: startup.sh IMAGE}"
registry="${image%%/*}"

command -v docker > /dev/null || { sudo apt-get update -qq && sudo apt-get install -y -qq docker.io; }

token() {
    curl --silent --fail --header 'Metadata-Flavor: Google' \
        http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token \
        | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'
}

case "$registry" in
    *.pkg.dev | *gcr.io) token | sudo docker login --username oauth2accesstoken --password-stdin "https://$registry" ;;
esac
sudo docker pull --quiet "$image"
