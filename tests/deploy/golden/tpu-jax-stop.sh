# Stop the training; it saves a checkpoint
gcloud compute tpus tpu-vm ssh clozemill --quiet --zone=europe-west4-b --project=my-project --internal-ip \
    --worker=all '--command=bash run.sh stop'

# Delete the TPU
gcloud compute tpus queued-resources delete clozemill --quiet --zone=europe-west4-b --project=my-project \
    --force
