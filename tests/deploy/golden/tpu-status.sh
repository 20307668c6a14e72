# Look for its state, again and again until it is ACTIVE
gcloud compute tpus queued-resources describe clozemill --quiet --zone=europe-west4-b --project=my-project \
    '--format=json(state)'

# Look whether its machines are READY
gcloud compute tpus tpu-vm describe clozemill --quiet --zone=europe-west4-b --project=my-project \
    '--format=value(state)'
