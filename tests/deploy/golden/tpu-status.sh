# Look whether it is ACTIVE, again and again until it is
gcloud compute tpus queued-resources describe clozemill --quiet --zone=europe-west4-b --project=my-project \
    '--format=json(state)'

# Look at the TPU VM
gcloud compute tpus tpu-vm describe clozemill --quiet --zone=europe-west4-b --project=my-project \
    '--format=value(state)'
