# Build europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1
gcloud builds submit . --project=my-project --config=deploy/gke/cloudbuild.yaml \
    --substitutions=_IMAGE=europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1,_STACK=jax-tpu \
    --quiet

# Ask for a v5litepod-8
gcloud compute tpus queued-resources create clozemill --node-id=clozemill --quiet --zone=europe-west4-b \
    --project=my-project --accelerator-type=v5litepod-8 --runtime-version=v2-alpha-tpuv5-lite \
    --valid-until-duration=24h --labels=made-by=clozemill --spot --internal-ips --subnetwork=default \
    --service-account=clozemill@my-project.iam.gserviceaccount.com \
    --scopes=https://www.googleapis.com/auth/cloud-platform --async

# Look for its state, again and again until it is ACTIVE
gcloud compute tpus queued-resources describe clozemill --quiet --zone=europe-west4-b --project=my-project \
    '--format=json(state)'

# Look whether its machines are READY
gcloud compute tpus tpu-vm describe clozemill --quiet --zone=europe-west4-b --project=my-project \
    '--format=value(state)'

# Copy the scripts
gcloud compute tpus tpu-vm scp deploy/tpu/startup.sh deploy/tpu/run.sh clozemill: --quiet --zone=europe-west4-b \
    --project=my-project --internal-ip --worker=all

# Fetch the image
gcloud compute tpus tpu-vm ssh clozemill --quiet --zone=europe-west4-b --project=my-project --internal-ip \
    --worker=all '--command=bash startup.sh europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1'

# Start the training on every host
gcloud compute tpus tpu-vm ssh clozemill --quiet --zone=europe-west4-b --project=my-project --internal-ip \
    --worker=all \
    '--command=bash run.sh worker europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1 pretrain --engine jax --strategy tpu --data gs://my-bucket/dataset --preset base --batch-size 256 --steps 900000 --precision bfloat16 --output gs://my-bucket/run'

# Follow its log
gcloud compute tpus tpu-vm ssh clozemill --quiet --zone=europe-west4-b --project=my-project --internal-ip \
    --worker=0 '--command=bash run.sh follow'

# Look how the training ended, where its log broke off
gcloud compute tpus tpu-vm ssh clozemill --quiet --zone=europe-west4-b --project=my-project --internal-ip \
    --worker=0 '--command=bash run.sh state'

# Delete the TPU
gcloud compute tpus queued-resources delete clozemill --quiet --zone=europe-west4-b --project=my-project \
    --force
