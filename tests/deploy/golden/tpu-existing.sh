# Look whether its machines are READY
gcloud compute tpus tpu-vm describe mine --quiet --zone=europe-west4-b --project=my-project \
    '--format=value(state)'

# Copy the scripts
gcloud compute tpus tpu-vm scp deploy/tpu/startup.sh deploy/tpu/run.sh mine: --quiet --zone=europe-west4-b \
    --project=my-project --internal-ip --worker=all

# Fetch the image
gcloud compute tpus tpu-vm ssh mine --quiet --zone=europe-west4-b --project=my-project --internal-ip \
    --worker=all '--command=bash startup.sh europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1'

# Start the training
gcloud compute tpus tpu-vm ssh mine --quiet --zone=europe-west4-b --project=my-project --internal-ip --worker=0 \
    '--command=bash run.sh start europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1 pretrain --strategy tpu --data gs://my-bucket/dataset --preset base --batch-size 256 --steps 900000 --precision bfloat16 --output gs://my-bucket/run'

# Follow its log
gcloud compute tpus tpu-vm ssh mine --quiet --zone=europe-west4-b --project=my-project --internal-ip --worker=0 \
    '--command=bash run.sh follow'

# Look how the training ended, where its log broke off
gcloud compute tpus tpu-vm ssh mine --quiet --zone=europe-west4-b --project=my-project --internal-ip --worker=0 \
    '--command=bash run.sh state'
